"""The service's own certificates, and the keys of its ACME accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.create_table(
        "acme_accounts",
        sa.Column("directory", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("directory", name="pk_acme_accounts"),
    )
    op.create_table(
        "certificates",
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("directory", sa.Text),
        sa.Column("chain", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("attempted_at", sa.BigInteger),
        sa.Column("busy_until", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("hostname", name="pk_certificates"),
    )


def downgrade() -> None:
    op.drop_table("certificates")
    op.drop_table("acme_accounts")
