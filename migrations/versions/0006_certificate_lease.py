"""Which process has the lease for obtaining a certificate, so that no other process can renew that lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    op.add_column("certificates", sa.Column("busy_by", sa.String(36)))


def downgrade() -> None:
    with op.batch_alter_table("certificates") as certificates:
        certificates.drop_column("busy_by")
