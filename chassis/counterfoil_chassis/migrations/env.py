"""Alembic's environment for every service: runs the revisions on the connection that `migrate` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    transactional_ddl=True,  # SQLite can, though Alembic leaves it off for the driver's sake
)
with context.begin_transaction():
    context.run_migrations()
