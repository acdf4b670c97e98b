"""
The API's own certificate from a CA: it is obtained through our own zone with present and cleanup, as by all clients,
and renewed in time. All its state is in the store, so several nodes share one certificate, and one of them renews it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import structlog

from responder.certificate import accountkey, renewal
from responder.certificate.authority import Authority, Binding, Challenge
from responder.certificate.order import obtain
from responder.challenges import Challenges
from responder.config import Settings, ZoneSettings
from responder.dns.rrset import RRType
from responder.errors import AuthorityUnavailable, Invalid, NameTaken, NotFound, ResponderError, StoreUnavailable
from responder.logs import REMINDER, Outage, Seldom
from responder.store import NewToken, OwnCertificate, Store
from responder.tls.keypair import KeyPair, key_pem, new_key
from responder.tokens.hostname import challenge_name, zone_of
from responder.tokens.token import Grant, Token

LOOK_INTERVAL = 30.0
"""Seconds between two looks at the store: another node may have a new certificate."""

DELEGATION_INTERVAL = 10.0
"""Seconds between two looks at the delegation of the zone, while it is missing."""

DELEGATION_PATIENCE = timedelta(hours=1)
"""Time after which a certificate is ordered although the delegation seems to be missing: the CA may see another one."""

OBTAIN_DEADLINE = 300.0
"""Seconds for obtaining a certificate, from the first request to the last."""

LEASE = timedelta(seconds=20)
"""How long other processes wait after the last heartbeat of the process that is obtaining a certificate."""

SIGN_INTERVAL = 5.0
"""Seconds between two heartbeats: the lease ends when several have failed."""

LOOK_AGAIN = 5.0
"""Seconds between two looks while another process is obtaining a certificate: it may have been killed."""

RESTART_PAUSE = timedelta(seconds=20)
"""After an attempt that failed, if the process was started since: its settings may have been fixed."""

LOCKED_PAUSE = timedelta(days=3)
"""After which a certificate may be replaced whose private key was encrypted with another key file. Should several nodes
have different ones by mistake, they stay below the five equal certificates a week that Let's Encrypt issues."""

ASK_AGAIN = timedelta(hours=6)
"""Between two looks at renewal information, unless the CA asks for another pause (RFC 9773, section 4.3.3)."""

MIN_ASK_AGAIN, MAX_ASK_AGAIN = timedelta(minutes=1), timedelta(days=1)
"""Bounds of the pause that the CA asks for (RFC 9773, section 4.3.2)."""

DESCRIPTION = "the API's own certificate (api.tls)"
"""Description of the token of the challenge name. It has no secret, so only this process can use it."""

CLIENT = "api.tls"
"""The client in the audit."""

_log = structlog.get_logger("certificate")


class OwnCertificateKeeper:
    """
    Keeps the certificate of `api.hostname`. Passes each one to *use*, which raises `Invalid` if TLS cannot use it.

    *undelegated* returns why the zone is certainly not delegated, or "". The first certificate waits for that.
    """

    def __init__(
        self,
        store: Store,
        challenges: Challenges,
        settings: Settings,
        use: Callable[[KeyPair], None],
        *,
        clock: Callable[[], datetime],
        undelegated: Callable[[ZoneSettings], Awaitable[str]] | None = None,
    ) -> None:
        hostname = settings.api.hostname
        assert hostname is not None  # noqa: S101  # the settings ensure that
        self._hostname = hostname
        self._acme = settings.api.acme
        self._caa = _served_caa(settings)
        apex = zone_of(hostname, settings.serving.apexes)
        zone = next(zone for zone in settings.zones if zone.name == apex)
        self._zone = zone
        self._undelegated = undelegated
        self._seldom = Seldom(REMINDER)
        self._undelegated_since: datetime | None = None
        # An attempt that a restart interrupted is repeated at once. Resolvers count whole seconds, the last one
        # included.
        self._absence_ttl = zone.negative_ttl + 1
        self._grant = Grant(hostname=hostname, challenge_name=challenge_name(hostname, zone.name), apex=zone.name)
        self._store = store
        self._challenges = challenges
        self._use = use
        self._clock = clock
        self._used: KeyPair | None = None
        self._obtained: KeyPair | None = None  # but not in the store yet
        self._has_tried = False
        self._holder = uuid4()
        self._window: tuple[datetime, datetime] | None = None
        self._ask_at = clock()

    async def load(self) -> None:
        """Use the certificate in the store, if there is one, and make sure that our challenge name exists."""
        self._follow(await self._store.certificates.find(self._hostname))
        try:
            await self._token()
        except ResponderError as fault:
            _log.error("the challenge name of api.hostname is not available", reason=str(fault))

    async def run(self) -> None:
        """Renew in time, until cancelled. Errors are logged, and the attempt is repeated."""
        outage = Outage(_log, "cannot renew the certificate; using the old one", "the certificate is renewed again")
        while True:
            seconds = LOOK_INTERVAL
            try:
                seconds = await self._look()
                outage.is_over()
            except ResponderError as fault:
                outage.goes_on(str(fault))
            except Exception as fault:  # noqa: BLE001  # the edge of a task
                outage.goes_on(f"unexpected error: {type(fault).__name__}", exc_info=fault)
            await asyncio.sleep(seconds)

    async def _look(self) -> float:
        """Do what is due. Returns the seconds until the next call."""
        if self._obtained is not None:
            await self._keep(self._obtained)
        known = await self._store.certificates.find(self._hostname)
        self._check_lock(known)
        self._follow(known)
        due = await self._due(known)
        now = self._clock()
        if due > now:
            return min((due - now).total_seconds(), LOOK_INTERVAL)
        if known.pair is None and not await self._is_delegated():
            return DELEGATION_INTERVAL
        if not await self._store.certificates.begin(self._hostname, holder=self._holder, lease=LEASE, now=now):
            return LOOK_AGAIN
        await self._attempt(known)
        return 0.0

    async def _is_delegated(self) -> bool:
        """Whether the CA may find the challenge name. An order before that would fail, and delay the next one."""
        reason = "" if self._undelegated is None else await self._undelegated(self._zone)
        now = self._clock()
        if not reason:
            if self._undelegated_since is not None:
                _log.info("the zone is delegated", zone=str(self._zone.name))
            self._undelegated, self._undelegated_since = None, None
            return True
        self._undelegated_since = self._undelegated_since or now
        if now - self._undelegated_since >= DELEGATION_PATIENCE:
            self._undelegated = None
            return True
        if (more := self._seldom.due("undelegated")) is not None:
            _log.warning(
                "waiting for the delegation of the zone before a certificate is obtained; `responder zone delegation` "
                "prints the records for the parent zone",
                reason=reason,
                more=more,
            )
        return False

    def _check_lock(self, known: OwnCertificate) -> None:
        """Raise `Invalid` for a certificate that this node cannot use and should not replace."""
        if known.locked is None:
            return
        if not self._store.certificates.are_sealed:
            raise Invalid(_NO_KEY_FILE)
        if self._clock() - known.locked < LOCKED_PAUSE:
            raise Invalid(_OTHER_KEY_FILE)

    async def _due(self, known: OwnCertificate) -> datetime:
        """When to obtain a certificate: not before it is time to try again, if that has failed."""
        wanted = self._clock()
        if known.pair is not None and known.directory == self._acme.directory:
            await self._ask_for_window(known.pair)
            wanted = renewal.due(known.pair, self._window, obtained_at=known.attempted_at)
        if known.retry_at is None:
            return wanted
        if not self._has_tried and known.attempted_at is not None:
            return max(wanted, min(known.retry_at, known.attempted_at + RESTART_PAUSE))
        return max(wanted, known.retry_at)

    async def _attempt(self, known: OwnCertificate) -> None:
        self._has_tried = True
        heartbeats = asyncio.create_task(self._send_heartbeats())
        try:
            async with asyncio.timeout(OBTAIN_DEADLINE):
                self._obtained = await self._obtain(known)
        except TimeoutError:
            await self._note_failure(known, AuthorityUnavailable("obtaining a certificate took too long"))
        except ResponderError as fault:
            await self._note_failure(known, fault)
        except BaseException:
            await asyncio.shield(self._store.certificates.give_up(self._hostname))
            raise
        else:
            await self._keep(self._obtained)
        finally:
            heartbeats.cancel()

    async def _send_heartbeats(self) -> None:
        """Renew the lease, so that other processes wait."""
        while True:
            await asyncio.sleep(SIGN_INTERVAL)
            with suppress(StoreUnavailable):  # the lease lasts a while longer
                await self._store.certificates.go_on(self._hostname, holder=self._holder, lease=LEASE)

    async def _obtain(self, known: OwnCertificate) -> KeyPair:
        _log.info("obtaining a certificate", hostname=str(self._hostname), directory=self._acme.directory)
        token = await self._token()
        authority = await self._authority()
        account = await authority.log_in(contact=self._acme.contact, binding=self._binding())
        if account.is_new:
            _log.info("made an ACME account, and agreed to the CA's terms", account=account.url, terms=account.terms)
        await self._check_caa(authority)
        replaced = known.pair.leaf if known.pair is not None and known.directory == self._acme.directory else None
        solver = _LocalSolver(self._challenges, token, self._grant)
        names = [str(self._hostname)]
        pair = await obtain(authority, names, solver, replaces=replaced, absence_ttl=self._absence_ttl)
        assert pair is not None  # noqa: S101  # it was no dry run
        return pair

    async def _check_caa(self, authority: Authority) -> None:
        """Warn if our CAA records do not allow the CA, according to its directory."""
        identities = await authority.caa_identities()
        if identities and self._caa is not None and not self._caa.startswith(identities):
            _log.warning("CAA does not allow this CA to issue: set api.acme.caa to one of these", identities=identities)

    async def _keep(self, pair: KeyPair) -> None:
        """Store it, then use it."""
        await self._store.certificates.keep(self._hostname, self._acme.directory, pair)
        self._obtained = None
        self._take(pair)

    async def _note_failure(self, known: OwnCertificate, fault: ResponderError) -> None:
        failures = known.failures + 1
        wait = renewal.pause(failures, fault, random.random())  # noqa: S311  # random enough to spread attempts
        _log.error(
            "cannot obtain a certificate; using the existing one",
            reason=str(fault),
            failures=failures,
            again_in=f"{wait.total_seconds():.0f} s",
        )
        await self._store.certificates.note_failure(self._hostname, failures=failures, retry_at=self._clock() + wait)

    def _follow(self, known: OwnCertificate) -> None:
        """Use what is in the store, if it is not in use yet."""
        if known.pair is not None and known.pair != self._used:
            self._take(known.pair)

    def _take(self, pair: KeyPair) -> None:
        self._used = pair
        self._window, self._ask_at = None, self._clock()
        try:
            self._use(pair)
        except Invalid as fault:
            _log.error("the certificate of the CA cannot be used", reason=str(fault))
            return
        _log.info("using a certificate of the CA", issuer=pair.issuer, not_after=pair.not_after.isoformat())

    async def _ask_for_window(self, pair: KeyPair) -> None:
        """Ask the CA when it would like *pair* to be renewed, if it is time to; not about one that has expired."""
        now = self._clock()
        if now < self._ask_at or now >= pair.not_after:
            return
        wait = ASK_AGAIN
        try:
            authority = await self._authority()
            self._window = await authority.window(pair.leaf)
            if authority.retry_after is not None:
                wait = timedelta(seconds=authority.retry_after)
        except ResponderError as fault:
            _log.warning("no renewal information; renewing at 2/3 of the lifetime", reason=str(fault))
            self._window = None
        self._ask_at = now + min(max(wait, MIN_ASK_AGAIN), MAX_ASK_AGAIN)

    async def _authority(self) -> Authority:
        """The CA, with the key of our account in the store. Raises `Invalid` if that is damaged."""
        key = await self._store.certificates.account_key(self._acme.directory, key_pem(new_key()))
        return Authority(self._acme.directory, accountkey.parse(key), ca_file=self._acme.ca_file)

    def _binding(self) -> Binding | None:
        """Raises `Invalid`."""
        acme = self._acme
        return Binding.read(acme.eab_kid, Path(acme.eab_hmac_key_file)) if acme.eab_kid else None

    async def _token(self) -> Token:
        """The token that grants us our challenge name, the same on every node; another one if it was revoked."""
        for number in count():
            token_id = uuid5(_NAMESPACE, f"{self._hostname} {number}")
            try:
                token = await self._store.token(token_id)
            except NotFound:
                return await self._mint(token_id)
            if token.revoked_at is None:
                if self._grant in token.grants:
                    return token
                await self._store.revoke(token_id, at=self._clock())  # its name is in a zone that was renamed
        raise AssertionError  # there are always more numbers

    async def _mint(self, token_id: UUID) -> Token:
        grants, now = (self._grant,), self._clock()
        new = NewToken(id=token_id, digest=None, description=DESCRIPTION, grants=grants, created_at=now)
        try:
            return await self._store.mint(new)
        except NameTaken as fault:
            taken = fault.args[0].partition(":")[0]
            raise NameTaken(f"{taken}: choose another api.hostname, or revoke the tokens of that hostname") from None
        except StoreUnavailable:
            return await self._store.token(token_id)  # if another node was quicker


_NO_KEY_FILE = (
    "the certificate in the database is encrypted: name the key file that it was encrypted with (dns.update.key_file)"
)
_OTHER_KEY_FILE = (
    "the certificate in the database is encrypted with another key file: use the same file on every node "
    "(dns.update.key_file), or restore it from a backup; if it is lost, another certificate is obtained three days "
    "after this one was issued"
)

_NAMESPACE = UUID("0b9ce3d4-5e0a-4c55-9d0e-6f2d6a8f7c11")
"""Of the ids of those tokens (RFC 9562, section 5.5)."""


def _served_caa(settings: Settings) -> str | None:
    """The CAA that we add for the API's host; None if the administrator has configured another."""
    hostname, made = settings.api.hostname, settings.api.caa_identity
    rrsets = [rrset for static in settings.statics for rrset in static.rrsets]
    has_caa = any((rrset.owner, rrset.type) == (hostname, RRType.CAA) for rrset in rrsets)
    return made if made or not has_caa else None


class _LocalSolver:
    """Presents and cleans up within this process."""

    def __init__(self, challenges: Challenges, token: Token, grant: Grant) -> None:
        self._challenges = challenges
        self._token = token
        self._grant = grant

    async def present(self, challenge: Challenge) -> str:
        await self._challenges.present(self._token, self._grant, challenge.value, client=CLIENT)
        return str(self._grant.challenge_name)

    async def cleanup(self, challenge: Challenge) -> None:
        await self._challenges.cleanup(self._token, self._grant, challenge.value, client=CLIENT)
