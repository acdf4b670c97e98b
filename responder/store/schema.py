"""
The tables, and how domain types are stored in them. Alembic creates the tables (see `migrations/`), and a test compares
the result with this module.

There are no statements here, and no table is created from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from responder.names import Name
from responder.tokens.network import Network, parse_network
from responder.tokens.values import round_up


class Instant(TypeDecorator[datetime]):
    """A moment: whole seconds since 1970 in the database, so that it is exact; an aware UTC `datetime` in Python."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value.timestamp())

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)


class Deadline(Instant):
    """The instant at which something ends. It is rounded up to a whole second, so that nothing ends too early."""

    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return super().process_bind_param(None if value is None else round_up(value), dialect)


class NameText(TypeDecorator[Name]):
    """A domain name in presentation form, which people can read; lower-cased and without a trailing dot."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Name | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Name | None:
        return None if value is None else Name.parse(value)


class UuidText(TypeDecorator[UUID]):
    """A UUID in its usual form of 36 characters."""

    impl = String(36)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(value)


class Networks(TypeDecorator[tuple[Network, ...]]):
    """Networks as a JSON list of texts."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[Network] | None, dialect: Dialect) -> Any:
        return [str(network) for network in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Network, ...]:
        return tuple(parse_network(text) for text in value)


REVISION = "0010"
"""The step of `migrations/` that results in this schema."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite numbers rows by itself only in a column of exactly this type.
_Id = BigInteger().with_variant(Integer, "sqlite")

# One row, which identifies this database. A copy of the database has the same row.
origin = Table(
    "origin",
    metadata,
    Column("id", UuidText, primary_key=True),
    # NULL in a database that was created before this table existed.
    Column("created_at", Instant),
)

# One row, which is written to prove that changes can be made.
probe = Table(
    "probe",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("octets", LargeBinary, nullable=False),
)

zones = Table(
    "zones",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("apex", NameText, nullable=False, unique=True),
    # It only grows. It has 64 bits here, and is cut to 32 bits on the wire (RFC 1982).
    Column("serial", BigInteger, nullable=False),
    # The digest of the static records that all nodes serve with this serial; NULL if they differ or are unknown.
    Column("static", Text),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", UuidText, primary_key=True),
    Column("description", Text),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Deadline),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
    Column("allow_from", Networks, nullable=False),
    Column("account_thumbprint", Text),
)

# The secrets of tokens. Rotating a token adds one, and ends the earlier ones after a while.
secrets = Table(
    "secrets",
    metadata,
    Column("token_id", ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(32), unique=True),
    # The hash that another server has stored, until a client uses the secret here for the first time.
    Column("bcrypt", LargeBinary(60)),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Deadline),
)

hostnames = Table(
    "hostnames",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("hostname", NameText, nullable=False, unique=True),
    Column("zone_id", ForeignKey("zones.id"), nullable=False),
    # Several hostnames may share a challenge name, if only one token has grants for them.
    Column("challenge_name", NameText, nullable=False, index=True),
)

grants = Table(
    "grants",
    metadata,
    Column("token_id", ForeignKey("tokens.id", ondelete="CASCADE"), primary_key=True),
    # The index is for the question whether a name exists, which a snapshot asks for every name.
    Column("hostname_id", ForeignKey("hostnames.id", ondelete="CASCADE"), primary_key=True, index=True),
)

challenge_values = Table(
    "challenge_values",
    metadata,
    Column("id", _Id, primary_key=True),
    # Only a name that is granted has values: they are removed together with the last grant of their token.
    Column("challenge_name", NameText, nullable=False),
    Column("value", Text, nullable=False),
    Column("token_id", ForeignKey("tokens.id"), nullable=False),
    Column("presented_at", Instant, nullable=False),
    Column("expires_at", Deadline, nullable=False, index=True),
    UniqueConstraint("challenge_name", "value"),
)

# The journal: which names changed at which serial. Their new state is in the other tables.
changes = Table(
    "changes",
    metadata,
    Column("zone_id", ForeignKey("zones.id"), primary_key=True),
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("name", NameText, primary_key=True),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("octets", LargeBinary(32), nullable=False),
)

# Keys of ACME accounts in PEM, by the URL of the CA's directory.
acme_accounts = Table(
    "acme_accounts",
    metadata,
    Column("directory", Text, primary_key=True),
    Column("key", Text, nullable=False),
)

# Our own certificates with their private keys, in PEM, and which process has the lease for obtaining the next one.
certificates = Table(
    "certificates",
    metadata,
    Column("hostname", NameText, primary_key=True),
    Column("directory", Text),
    Column("chain", Text),
    Column("key", Text),
    Column("attempted_at", Instant),
    Column("busy_until", Deadline),
    Column("busy_by", UuidText),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Deadline),
)

# The running services on this database. Times are seconds since 1970 by the clock of the database, except `clock`,
# which is the clock of the node.
nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("instance", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("schema_min", Text, nullable=False),
    Column("schema_max", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("clock", Double, nullable=False),
    # By apex: the serial and the digest of the static records.
    Column("zones", JSON, nullable=False),
)

# There is no foreign key, because an event stays when its token or hostname is deleted.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Instant, nullable=False, index=True),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("token_id", UuidText),
    Column("hostname", NameText),
    Column("value", Text),
    Column("client", Text),
    Column("reason", Text),
)
