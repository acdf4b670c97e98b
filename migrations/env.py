"""
How Alembic reaches the database: through a connection that `responder.store.migration` hands over.

The transaction around the migrations, and the lock that lets two processes start at once, are the caller's.
"""

from __future__ import annotations

from alembic import context

from responder.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter much: tables are copied instead.
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
