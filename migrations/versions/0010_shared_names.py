"""
Values belong to a challenge name instead of a hostname, because several hostnames may share a name.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("challenge_values") as values:
        values.add_column(sa.Column("challenge_name", sa.Text))
    op.execute(
        "UPDATE challenge_values SET challenge_name = "
        "(SELECT challenge_name FROM hostnames WHERE hostnames.id = challenge_values.hostname_id)"
    )
    with op.batch_alter_table("challenge_values") as values:
        values.drop_constraint("fk_challenge_values_hostname_id_hostnames", type_="foreignkey")
        values.drop_constraint("uq_challenge_values_hostname_id_value", type_="unique")
        values.drop_column("hostname_id")
        values.alter_column("challenge_name", existing_type=sa.Text, nullable=False)
        values.create_unique_constraint("uq_challenge_values_challenge_name_value", ["challenge_name", "value"])
    with op.batch_alter_table("hostnames") as hostnames:
        hostnames.drop_constraint("uq_hostnames_challenge_name", type_="unique")
        hostnames.create_index("ix_hostnames_challenge_name", ["challenge_name"])


def downgrade() -> None:
    """Keep one hostname of each challenge name. The others are deleted, with the grants for them."""
    op.execute("DELETE FROM grants WHERE hostname_id NOT IN (SELECT min(id) FROM hostnames GROUP BY challenge_name)")
    op.execute("DELETE FROM hostnames WHERE id NOT IN (SELECT min(id) FROM hostnames GROUP BY challenge_name)")
    with op.batch_alter_table("hostnames") as hostnames:
        hostnames.drop_index("ix_hostnames_challenge_name")
        hostnames.create_unique_constraint("uq_hostnames_challenge_name", ["challenge_name"])
    with op.batch_alter_table("challenge_values") as values:
        values.add_column(sa.Column("hostname_id", _ID))
    op.execute(
        "UPDATE challenge_values SET hostname_id = "
        "(SELECT id FROM hostnames WHERE hostnames.challenge_name = challenge_values.challenge_name)"
    )
    with op.batch_alter_table("challenge_values") as values:
        values.drop_constraint("uq_challenge_values_challenge_name_value", type_="unique")
        values.drop_column("challenge_name")
        values.alter_column("hostname_id", existing_type=_ID, nullable=False)
        values.create_foreign_key(
            "fk_challenge_values_hostname_id_hostnames", "hostnames", ["hostname_id"], ["id"], ondelete="CASCADE"
        )
        values.create_unique_constraint("uq_challenge_values_hostname_id_value", ["hostname_id", "value"])
