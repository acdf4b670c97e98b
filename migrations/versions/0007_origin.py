"""When the database was created, and what distinguishes it from any other in the same place."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    """A database that is older than this step keeps no time of its creation."""
    origin = op.create_table(
        "origin",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_origin"),
    )
    op.bulk_insert(origin, [{"id": str(uuid4())}])


def downgrade() -> None:
    op.drop_table("origin")
