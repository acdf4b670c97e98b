"""
A CA, for asynchronous callers: each step of RFC 8555 is a coroutine with a deadline, and raises errors of ours only.

The library blocks, so each step runs on a thread of its own. A thread cannot be cancelled: a caller that stops waiting
leaves it behind. It is a daemon thread, so it does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from acme.messages import STATUS_PENDING, STATUS_PROCESSING, STATUS_READY, STATUS_VALID, Error
from cryptography import x509

from responder.certificate.accountkey import Key
from responder.certificate.faults import describe, explaining, shown
from responder.certificate.network import AcmeNetwork
from responder.certificate.session import Authorization, Order, Session
from responder.errors import AuthorityUnavailable, CertificateRefused, Invalid
from responder.files import namedfile

T = TypeVar("T")

MAX_BINDING_FILE = 4 << 10
"""Octets of a file with an HMAC key, twice as many as such files have."""

STEP_DEADLINE = 60.0
"""Seconds for one step, refused nonces included."""

CONCLUSION_DEADLINE = 180.0
"""Seconds for the CA to decide on one authorization or order."""

MIN_PAUSE, MAX_PAUSE = 1.0, 30.0
"""Seconds between two queries for its decision; Retry-After counts only within these bounds."""


@dataclass(frozen=True, slots=True)
class Binding:
    """An external account binding (RFC 8555, section 7.3.4): a key identifier and an HMAC key in base64url."""

    kid: str
    hmac_key: str

    @classmethod
    def parse(cls, kid: str, hmac_key: str) -> Self:
        """Raises `Invalid`, which does not quote the key."""
        plain = hmac_key.strip().rstrip("=").translate(str.maketrans("+/", "-_"))
        if not re.fullmatch(r"[\w-]{8,1024}", plain, re.ASCII):
            raise Invalid(
                "the HMAC key of the external account binding is not base64url: copy it whole, as the CA shows it"
            )
        return cls(kid, plain)

    @classmethod
    def read(cls, kid: str, path: Path, *, pipes: bool = False) -> Self:
        """As `parse`, with the HMAC key in the file at *path*, or in a pipe there."""
        try:
            text = namedfile.read_text(path, MAX_BINDING_FILE, pipes=pipes)
        except Invalid as fault:
            raise Invalid(f"the HMAC key in {fault}") from None
        return cls.parse(kid, text)


@dataclass(frozen=True, slots=True)
class AcmeAccount:
    """An account with the CA. *terms* is the URL of the terms that its owner agreed to, if the CA has terms."""

    url: str
    is_new: bool
    terms: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a CA wants to see to validate *hostname*: *value*, in DNS. The value is made from *acme_token*."""

    hostname: str
    value: str
    acme_token: str
    authorization: Authorization


class Authority:
    """The CA whose directory is at *url*, and our account with it."""

    def __init__(self, url: str, key: Key, *, ca_file: str = "") -> None:
        """Raises `Invalid` for an invalid *ca_file*."""
        self._url = url
        self._key = key
        self._network = AcmeNetwork(key, ca_file)
        self._session: Session | None = None

    async def log_in(self, *, contact: str = "", binding: Binding | None = None) -> AcmeAccount:
        """
        Find the account that belongs to the key, or make it.

        *contact* and *binding* are for a new one only. Raises `Invalid` if the CA wants a binding that is not there.
        """
        url = await self._step(Session.find_account)
        terms = shown(await self._step(lambda session: session.terms or ""))
        if url is not None:
            return AcmeAccount(shown(url), is_new=False, terms=terms)
        if binding is None and await self._step(lambda session: session.wants_binding):
            raise Invalid(
                f"the CA {self._url} wants an external account binding: give it the key identifier and the HMAC key "
                "that it gave you (api.acme.eab_kid and eab_hmac_key_file; --eab-kid and --eab-key-file)"
            )
        bound = (binding.kid, binding.hmac_key) if binding is not None else None
        made = await self._step(lambda session: session.make_account(contact, bound))
        return AcmeAccount(shown(made), is_new=True, terms=terms)

    async def caa_identities(self) -> tuple[str, ...]:
        """The domains that allow this CA in a CAA record."""
        return await self._step(lambda session: session.caa_identities)

    async def place(self, names: Sequence[str], *, replaces: x509.Certificate | None = None) -> Order:
        """
        Order a certificate for *names*, which may begin with `*.`; *replaces* is the certificate that it replaces.
        """
        identifier = certificate_id(replaces) if replaces is not None else None
        return await self._step(
            lambda session: session.place(names, identifier if session.renewal_info is not None else None)
        )

    async def challenge(self, authorization_url: str) -> Challenge | None:
        """The challenge of an authorization; None if it is valid already. Raises `CertificateRefused`."""
        asked = await self._step(lambda session: session.authorization(authorization_url))
        if asked.status == STATUS_VALID:
            return None
        if asked.status != STATUS_PENDING or asked.challenge is None:
            raise CertificateRefused(f"the CA {self._url} offers no dns-01 challenge for {asked.hostname}")
        value, acme_token = str(asked.challenge.validation(self._key)), str(asked.challenge.chall.encode("token"))
        return Challenge(asked.hostname, value, acme_token, asked)

    async def begin_validation(self, challenge: Challenge) -> None:
        """Ask the CA to validate the value, and wait until it has. Raises `CertificateRefused`."""
        asked = challenge.authorization
        await self._step(lambda session: session.begin_validation(asked))
        async for _ in self._pauses(f"has not validated {asked.hostname}"):
            seen = await self._step(lambda session: session.authorization(asked.url))
            if seen.status == STATUS_VALID:
                return
            if seen.status != STATUS_PENDING:
                error = seen.challenge.error if seen.challenge is not None else None
                raise CertificateRefused(_verdict(f"{self._url} ({asked.hostname})", error), hostname=asked.hostname)

    async def finalize(self, order: Order, csr_pem: bytes) -> bytes:
        """The chain that the CA issues for the request, in PEM. Raises `CertificateRefused`."""
        asked = False
        async for _ in self._pauses("has not issued the certificate"):
            state = await self._step(lambda session: session.order(order.url))
            if state.status == STATUS_VALID and state.certificate:
                return await self._step(partial(Session.certificate, url=str(state.certificate)))
            if state.status == STATUS_READY and not asked:
                await self._step(lambda session: session.finalize(order.finalize_url, csr_pem))
                asked = True
            elif state.status not in (STATUS_PENDING, STATUS_READY, STATUS_PROCESSING, STATUS_VALID):
                raise CertificateRefused(_verdict(self._url, state.error))
        raise AssertionError  # the pauses end by raising

    async def window(self, certificate: x509.Certificate) -> tuple[datetime, datetime] | None:
        """When the CA suggests to renew, first and last moment (RFC 9773); None if it suggests nothing."""
        identifier = certificate_id(certificate)
        if identifier is None or await self._step(lambda session: session.renewal_info) is None:
            return None
        return await self._step(lambda session: session.window(identifier))

    @property
    def retry_after(self) -> float | None:
        """The Retry-After of the last reply of the CA, in seconds."""
        return self._network.retry_after

    async def _pauses(self, what: str) -> AsyncIterator[None]:
        """Yields when it is time to ask for the decision of the CA, with the pauses that the CA asks for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CONCLUSION_DEADLINE
        while loop.time() < until:
            yield
            await asyncio.sleep(min(max(self.retry_after or 0.0, MIN_PAUSE), MAX_PAUSE))
        raise AuthorityUnavailable(f"the CA {self._url} {what} within {CONCLUSION_DEADLINE:g} seconds: try again later")

    async def _step(self, work: Callable[[Session], T]) -> T:
        """Do *work* with the session, which the first step opens."""

        def run() -> T:
            with explaining(self._url, self._network):
                if self._session is None:
                    self._session = Session.open(self._url, self._network)
                return work(self._session)

        try:
            async with asyncio.timeout(STEP_DEADLINE):
                return await _in_thread(run)
        except TimeoutError:
            raise AuthorityUnavailable(f"the CA {self._url} does not respond in time: try again later") from None


def _verdict(authority: str, problem: Error | None) -> str:
    return f"the CA {authority} reports: {describe(problem)}" if problem is not None else f"the CA {authority} refused"


def certificate_id(certificate: x509.Certificate) -> str | None:
    """
    The identifier of a certificate for renewal information (RFC 9773, section 4.1); None without a key identifier.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return None
    if extension.value.key_identifier is None:
        return None
    serial = certificate.serial_number
    parts = (extension.value.key_identifier, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def _in_thread(work: Callable[[], T]) -> T:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, fault: Exception | None) -> None:
        if done.done():  # the caller has stopped waiting
            return
        if fault is not None:
            done.set_exception(fault)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome: tuple[T | None, Exception | None] = (work(), None)
        except Exception as fault:  # noqa: BLE001  # the edge of a thread
            outcome = (None, fault)
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:  # the loop has ended, and the caller with it
            return

    threading.Thread(target=run, name="acme", daemon=True).start()
    return await done
