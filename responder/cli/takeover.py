"""
Takes over the accounts of an acme-dns server as tokens, and reports which accounts cannot be taken over.

An account keeps its user name, which becomes the id of the token, its password, stored as its bcrypt hash, its name in
the zone, and its values. Input is read as leniently as acme-dns reads it, and what has to be left out is reported. The
SQL is in the store.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from responder.errors import Invalid, Refused
from responder.names import Name
from responder.store import Account, NewToken, Store
from responder.store.acmedns import AcmeDnsDatabase, Row
from responder.tokens.network import Network, parse_network
from responder.tokens.serving import Serving
from responder.tokens.token import Grant
from responder.tokens.values import is_digest

VALUES_KEPT = 2
"""Values that are kept at each name: acme-dns shows the same number."""

BATCH = 250
"""Accounts in one transaction. It takes less than a second, so a running service does not wait long to write."""

PAUSE = 0.05
"""Seconds between transactions: SQLite has no queue for writers, and without a pause this one would always be first."""

DESCRIPTION = "imported from acme-dns"

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# The last of the 22 characters of salt has two bits only. Hashes of acme-dns have cost 10; each step more doubles the
# time that an attempt with a wrong password costs this service.
_BCRYPT = re.compile(rb"\$2[abxy]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """
    Where the accounts go: into the zone *apex*, except to the names that are *taken* by static records. Values stay for
    *lifetime*. A *dry_run* changes nothing.
    """

    apex: Name
    serving: Serving
    taken: Collection[Name]
    lifetime: timedelta
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Remark:
    """A message for the administrator about the account of *username*."""

    username: str
    text: str


@dataclass(slots=True)
class Part:
    """
    The result for a part of the accounts: those that were *taken_over* now, how many were *known* before, and those
    that were *refused*. *remarks* are about accounts that were taken over in part.
    """

    taken_over: list[Account] = field(default_factory=list)
    known: int = 0
    refused: list[Remark] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of accounts in this part."""
        return len(self.taken_over) + self.known + len(self.refused)


async def take_over(source: AcmeDnsDatabase, store: Store, destination: Destination) -> AsyncGenerator[Part, None]:
    """
    Take over the accounts of *source*. Each part is stored before it is yielded.

    Raises `StoreUnavailable` if one of the two databases cannot be used.
    """
    holders: dict[Name, UUID] = {}
    async for rows in source.rows():
        part = Part()
        now = datetime.now(UTC)
        accounts = [account for row in rows if (account := _read(row, destination, part, at=now)) is not None]
        accounts = [account for account in accounts if _is_apart(account, holders, part)]
        for start in range(0, len(accounts), BATCH):
            await _write(store, accounts[start : start + BATCH], destination, part, at=now)
        yield part


async def _write(
    store: Store, accounts: Sequence[Account], destination: Destination, part: Part, *, at: datetime
) -> None:
    """Write *accounts* in one transaction. If it is refused, write each half, until the accounts at fault are known."""
    try:
        until = at + destination.lifetime
        new = await store.take_over(
            accounts, serving=destination.serving, at=at, until=until, dry_run=destination.dry_run
        )
    except Refused:
        if len(accounts) > 1:
            half = len(accounts) // 2
            await _write(store, accounts[:half], destination, part, at=at)
            await _write(store, accounts[half:], destination, part, at=at)
        else:
            (account,) = accounts
            name = account.token.grants[0].challenge_name
            part.refused.append(Remark(str(account.token.id), f"{name} belongs to another token: see token list"))
        return
    if new:
        await asyncio.sleep(PAUSE)
    part.taken_over += [account for account in accounts if account.token.id in new]
    part.known += len(accounts) - len(new)


def _read(row: Row, destination: Destination, part: Part, *, at: datetime) -> Account | None:
    """Return the account in *row*; None if it cannot be taken over, which is then noted in *part*."""
    username = _text(row.username)
    try:
        networks, unread = parse_networks(_text(row.allow_from or ""))
        token = NewToken(
            id=_parse_id(username),
            digest=None,
            bcrypt=_parse_hash(row.password),
            grants=(_grant(_text(row.subdomain), destination),),
            created_at=at,
            description=DESCRIPTION,
            allow_from=networks,
        )
    except Invalid as fault:
        part.refused.append(Remark(username, str(fault)))
        return None
    if unread:
        part.remarks.append(Remark(username, f"networks that cannot be read were left out: {', '.join(unread)}"))
    return Account(token=token, values=_values(row), last_used_at=_last_used(row, at))


def _is_apart(account: Account, holders: dict[Name, UUID], part: Part) -> bool:
    """
    Return whether no other account has the same name, and note in *part* if one has. The names of two accounts can
    differ in letter case only, which acme-dns distinguishes and DNS does not (RFC 4343).
    """
    name = account.token.grants[0].challenge_name
    holder = holders.setdefault(name, account.token.id)
    if holder == account.token.id:
        return True
    part.refused.append(
        Remark(
            str(account.token.id),
            f"account {holder} has the same name {name}, because DNS ignores letter case: mint a new token for its "
            "hostname",
        )
    )
    return False


def _text(column: str | bytes) -> str:
    """Return the text of a column, which may hold octets, or text that is not UTF-8."""
    return _octets(column).decode(errors="backslashreplace")


def _octets(column: str | bytes) -> bytes:
    return column.encode(errors="surrogateescape") if isinstance(column, str) else bytes(column)


def parse_networks(text: str | None) -> tuple[tuple[Network, ...], list[str]]:
    """
    Parse AllowFrom of an account. Return its networks, and the text of entries that cannot be read, as acme-dns ignores
    those.

    Raises `Invalid` if no entry can be read, so that the account would be open to all addresses, and if acme-dns itself
    cannot read AllowFrom.
    """
    try:
        entries = json.loads(text or "") or []
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise Invalid("its AllowFrom is not a JSON list, and acme-dns refuses the account as well: write [] there")
    networks: dict[Network, None] = {}
    unread = []
    for entry in entries:
        try:
            networks[parse_network(str(entry).strip("[]").replace("]/", "/"), strict=False)] = None
        except ValueError:
            unread.append(repr(entry)[:50])
    if unread and not networks:
        raise Invalid(
            "no network in its AllowFrom can be read, and without a network it would be open to all addresses: fix "
            "AllowFrom"
        )
    return tuple(networks), unread


def _parse_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid("its user name is not a UUID, and acme-dns refuses the account as well") from None


def _parse_hash(password: str | bytes) -> bytes:
    octets = _octets(password)
    if not _BCRYPT.fullmatch(octets):
        raise Invalid("its password is not a bcrypt hash with a cost from 4 to 14")
    return octets


def _grant(subdomain: str, destination: Destination) -> Grant:
    """Return the grant of an account. Any hostname may have a CNAME to its name, so that name is also its hostname."""
    if not _LABEL.fullmatch(subdomain):
        raise Invalid("its subdomain is not a single label, and acme-dns refuses the account as well")
    name = Name.from_labels([subdomain.encode(), *destination.apex.labels])
    if name in destination.taken:
        raise Invalid(f"{name} has records from the configuration")
    return Grant(hostname=name, challenge_name=name, apex=destination.apex)


def _values(row: Row) -> tuple[str, ...]:
    """Return the newest values, oldest first."""
    values = (_text(value) for value, _ in row.values)
    good = dict.fromkeys(value for value in values if is_digest(value))
    return tuple(reversed([*good][:VALUES_KEPT]))


def _last_used(row: Row, now: datetime) -> datetime | None:
    newest = max((seconds for _, seconds in row.values), default=0)
    return datetime.fromtimestamp(min(newest, int(now.timestamp())), UTC) if newest > 0 else None
