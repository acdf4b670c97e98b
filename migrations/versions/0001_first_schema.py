"""The first schema: zones, tokens, hostnames, grants, values, journal, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

# Plain types, because a migration must not change when the types of the program change.
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _create_names()
    _create_tokens()
    _create_values()
    _create_history()


def _create_names() -> None:
    op.create_table(
        "zones",
        sa.Column("id", _ID, nullable=False),
        sa.Column("apex", sa.Text, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_zones"),
        sa.UniqueConstraint("apex", name="uq_zones_apex"),
    )
    op.create_table(
        "hostnames",
        sa.Column("id", _ID, nullable=False),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("zone_id", _ID, nullable=False),
        sa.Column("challenge_name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hostnames"),
        sa.ForeignKeyConstraint(["zone_id"], ["zones.id"], name="fk_hostnames_zone_id_zones"),
        sa.UniqueConstraint("hostname", name="uq_hostnames_hostname"),
        sa.UniqueConstraint("challenge_name", name="uq_hostnames_challenge_name"),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("allow_from", sa.JSON, nullable=False),
        sa.Column("account_thumbprint", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_table(
        "grants",
        sa.Column("token_id", sa.String(36), nullable=False),
        sa.Column("hostname_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("token_id", "hostname_id", name="pk_grants"),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_grants_token_id_tokens", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["hostname_id"], ["hostnames.id"], name="fk_grants_hostname_id_hostnames", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_grants_hostname_id", "grants", ["hostname_id"])


def _create_values() -> None:
    op.create_table(
        "challenge_values",
        sa.Column("id", _ID, nullable=False),
        sa.Column("hostname_id", _ID, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("token_id", sa.String(36), nullable=False),
        sa.Column("presented_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_challenge_values"),
        sa.ForeignKeyConstraint(
            ["hostname_id"],
            ["hostnames.id"],
            name="fk_challenge_values_hostname_id_hostnames",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_challenge_values_token_id_tokens"),
        sa.UniqueConstraint("hostname_id", "value", name="uq_challenge_values_hostname_id_value"),
    )
    op.create_index("ix_challenge_values_expires_at", "challenge_values", ["expires_at"])


def _create_history() -> None:
    op.create_table(
        "changes",
        sa.Column("zone_id", _ID, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("zone_id", "serial", "name", name="pk_changes"),
        sa.ForeignKeyConstraint(["zone_id"], ["zones.id"], name="fk_changes_zone_id_zones"),
    )
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("token_id", sa.String(36)),
        sa.Column("hostname", sa.Text),
        sa.Column("value", sa.Text),
        sa.Column("client", sa.Text),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
