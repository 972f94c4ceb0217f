"""Backups, restores, and the move from one engine to the other: they work on the stores themselves."""
