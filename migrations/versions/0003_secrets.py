"""
Secrets get their own table, because a token that is rotated has two of them for a while.

A secret that was taken over from another server starts with the bcrypt hash that the other server has stored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("token_id", sa.String(36), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary(32)),
        sa.Column("bcrypt", sa.LargeBinary(60)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("token_id", "generation", name="pk_secrets"),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name="fk_secrets_token_id_tokens", ondelete="CASCADE"),
        sa.UniqueConstraint("digest", name="uq_secrets_digest"),
    )
    op.execute(
        "INSERT INTO secrets (token_id, generation, digest, created_at) SELECT id, 1, digest, created_at FROM tokens"
    )
    with op.batch_alter_table("tokens") as tokens:
        tokens.drop_constraint("uq_tokens_digest", type_="unique")
        tokens.drop_column("digest")


def downgrade() -> None:
    """Keep the newest secret of each token that has a digest. Tokens without any digest are deleted."""
    with op.batch_alter_table("tokens") as tokens:
        tokens.add_column(sa.Column("digest", sa.LargeBinary(32)))
    op.execute(
        "DELETE FROM tokens WHERE NOT EXISTS (SELECT 1 FROM secrets WHERE token_id = tokens.id AND digest IS NOT NULL)"
    )
    op.execute(
        "UPDATE tokens SET digest = (SELECT digest FROM secrets WHERE token_id = tokens.id AND digest IS NOT NULL "
        "ORDER BY generation DESC LIMIT 1)"
    )
    with op.batch_alter_table("tokens") as tokens:
        tokens.alter_column("digest", existing_type=sa.LargeBinary(32), nullable=False)
        tokens.create_unique_constraint("uq_tokens_digest", ["digest"])
    op.drop_table("secrets")
