"""Alembic revisions of the service database."""
