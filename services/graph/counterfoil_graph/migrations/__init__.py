"""Alembic revisions of the models database."""
