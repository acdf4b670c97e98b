"""When the database was created, and a unique id of it."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    """Create the row. For a database that is older than this step, the time of its creation is unknown."""
    origin = op.create_table(
        "origin",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_origin"),
    )
    op.bulk_insert(origin, [{"id": str(uuid4())}])


def downgrade() -> None:
    op.drop_table("origin")
