"""
Connects Alembic with the database, through a connection that `responder.store.migration` passes.

The caller begins the transaction around the migrations, and takes the lock that keeps other processes out.
"""

from __future__ import annotations

from alembic import context

from responder.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can alter only a few things, so tables are copied instead.
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
