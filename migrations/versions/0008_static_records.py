"""Which static records belong to the serial of a zone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    op.add_column("zones", sa.Column("static", sa.Text))


def downgrade() -> None:
    with op.batch_alter_table("zones") as zones:
        zones.drop_column("static")
