"""
Takes over the accounts of an acme-dns server: what each of them becomes here, and which cannot be had.

An account keeps its user name, which becomes a token's id, its password, known by its bcrypt hash, its name in the zone
and the values there. It is as lenient as acme-dns is, and says what it had to leave out. The SQL is in the store.
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
"""Of each name: as many as acme-dns shows."""

BATCH = 250
"""Accounts in one transaction: a part of a second, so that a running service never waits for long to write."""

PAUSE = 0.05
"""Seconds after each of those: SQLite has no queue for writers, and one that comes back at once is always first."""

DESCRIPTION = "imported from acme-dns"

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# Of the 22 characters of salt, the last has two bits only. acme-dns's hashes cost 10; each step more doubles the time
# that somebody who tries a password keeps us busy with.
_BCRYPT = re.compile(rb"\$2[abxy]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Into which zone, and what in it has records already; how long values stay; whether just to see."""

    apex: Name
    serving: Serving
    taken: Collection[Name]
    lifetime: timedelta
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Remark:
    """What somebody has to know about the account of *username*."""

    username: str
    text: str


@dataclass(slots=True)
class Part:
    """What came of some of the accounts: those that are ours now, those that were before, and those that are not."""

    taken_over: list[Account] = field(default_factory=list)
    known: int = 0
    refused: list[Remark] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many accounts it is about."""
        return len(self.taken_over) + self.known + len(self.refused)


async def take_over(source: AcmeDnsDatabase, store: Store, destination: Destination) -> AsyncGenerator[Part, None]:
    """Take over what *source* has, part by part; each is on disk when it comes. Raises `StoreUnavailable`."""
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
    """All at once; if that is refused, by halves, until it is clear which are in the way."""
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
    """The account in *row*; None if there can be none, and then *part* says why."""
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
        part.remarks.append(Remark(username, f"of its networks, {', '.join(unread)} cannot be read: left out"))
    return Account(token=token, values=_values(row), last_used_at=_last_used(row, at))


def _is_apart(account: Account, holders: dict[Name, UUID], part: Part) -> bool:
    """Whether its name is no other account's as well, which acme-dns tells from it by letter case (see RFC 4343)."""
    name = account.token.grants[0].challenge_name
    holder = holders.setdefault(name, account.token.id)
    if holder == account.token.id:
        return True
    part.refused.append(
        Remark(
            str(account.token.id),
            f"{name} is the name of account {holder}, too, for DNS knows no letter case: give its hostname a new token",
        )
    )
    return False


def _text(column: str | bytes) -> str:
    """What a column says, also where somebody wrote text into it as octets, or text that is not UTF-8."""
    return _octets(column).decode(errors="backslashreplace")


def _octets(column: str | bytes) -> bytes:
    return column.encode(errors="surrogateescape") if isinstance(column, str) else bytes(column)


def parse_networks(text: str | None) -> tuple[tuple[Network, ...], list[str]]:
    """
    The networks in an account's AllowFrom, and the text of those that cannot be read, which acme-dns ignores.

    Raises `Invalid` if that would open the account to everybody, and where acme-dns itself cannot read the account.
    """
    try:
        entries = json.loads(text or "") or []
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise Invalid("its AllowFrom is no list in JSON, so that acme-dns refuses it, too: write [] there")
    networks: dict[Network, None] = {}
    unread = []
    for entry in entries:
        try:
            networks[parse_network(str(entry).strip("[]").replace("]/", "/"), strict=False)] = None
        except ValueError:
            unread.append(repr(entry)[:50])
    if unread and not networks:
        raise Invalid(
            "none of the networks in its AllowFrom can be read, and without any it would be open to everybody"
        )
    return tuple(networks), unread


def _parse_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid("its user name is no UUID, so that acme-dns refuses it, too") from None


def _parse_hash(password: str | bytes) -> bytes:
    octets = _octets(password)
    if not _BCRYPT.fullmatch(octets):
        raise Invalid("its password is no bcrypt hash of a cost from 4 to 14")
    return octets


def _grant(subdomain: str, destination: Destination) -> Grant:
    """An account is for whichever hostname has a CNAME to it, so that its hostname is its challenge name."""
    if not _LABEL.fullmatch(subdomain):
        raise Invalid("its subdomain is no single label, so that acme-dns refuses it, too")
    name = Name.from_labels([subdomain.encode(), *destination.apex.labels])
    if name in destination.taken:
        raise Invalid(f"{name} has records from the configuration")
    return Grant(hostname=name, challenge_name=name, apex=destination.apex)


def _values(row: Row) -> tuple[str, ...]:
    """The newest, in the order in which they came."""
    values = (_text(value) for value, _ in row.values)
    good = dict.fromkeys(value for value in values if is_digest(value))
    return tuple(reversed([*good][:VALUES_KEPT]))


def _last_used(row: Row, now: datetime) -> datetime | None:
    newest = max((seconds for _, seconds in row.values), default=0)
    return datetime.fromtimestamp(min(newest, int(now.timestamp())), UTC) if newest > 0 else None
