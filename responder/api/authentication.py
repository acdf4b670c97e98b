"""
Authentication: finds the token of a request, and checks its expiry, the network of the client, and the rate limits.

This module does not check what a token may *do*.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from uuid import UUID

import bcrypt
import structlog
from aiohttp import web

from responder.challenges import Challenges
from responder.errors import Refused, Unauthenticated
from responder.limits import Limits
from responder.store import AuditAction, Store
from responder.tokens.secret import Digest, digest
from responder.tokens.token import Token

TOKEN_MEMORY = 0.9
"""Seconds that a token is remembered. A new token or a new grant is noticed within this time."""

TOKEN_FRESH = 0.4
"""Seconds after which a token in use is looked up again. The remembered token is used until the look-up is done."""

MAX_REMEMBERED_TOKENS = 10_000

_UNKNOWN = "this token is unknown: check that all of it was copied, with its rsp_ prefix"

MAX_HASHED = 72
"""Octets of a password that bcrypt uses; the library raises an exception for a longer one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What a request presents: a secret, and perhaps the id of its token.

    *is_claim* is true if the id must be correct. The user name of Basic may be any text, even another token's id.
    """

    secret: str
    token_id: UUID | None = None
    is_claim: bool = False


class Authenticator:
    """
    Finds the token of a request.

    It remembers the token for a moment, and requests that wait for the same token share one look-up.
    """

    def __init__(
        self, store: Store, challenges: Challenges, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._limits = limits
        self._clock = clock
        self._remembered: OrderedDict[Digest, tuple[float, Token | None]] = OrderedDict()
        self._looking: dict[Digest, asyncio.Task[Token | None]] = {}
        self._taking = asyncio.Lock()  # hashing takes at most one core

    async def admit(self, request: web.Request, action: AuditAction) -> Token:
        """
        The token of the request. A refusal of a known token is written to the audit as a refusal of *action*.

        Raises `Unauthenticated`, `WrongNetwork`, `TooManyRequests`, `StoreUnavailable`.
        """
        token = await self.find(request, from_memory=action is not AuditAction.AUTHENTICATE)
        client = request.remote or ""
        try:
            token.admit(client, now=datetime.now(UTC))
        except Refused as refusal:
            self._limits.count_refusal(token.id)
            self._challenges.note_refusal(token, action, refusal, client=client)
            raise
        self._limits.count_use(token.id)
        return token

    async def find(self, request: web.Request, *, from_memory: bool) -> Token:
        """
        The token, even if it is expired or revoked. Raises `Unauthenticated`, `TooManyRequests`, `StoreUnavailable`.

        *from_memory* is for changes: their transaction checks whether the token was revoked or replaced since.
        Only unknown tokens count against the limit of an address, after the look-up: many clients may share the
        address, and those with a valid token must not be limited because of the failures of others.
        """
        client = request.remote or ""
        credentials = presented(request)
        key = digest(credentials.secret)
        look_up = self._find if from_memory else self._store.find_token
        token = await look_up(key) or await self._take_over(credentials, key, client)
        if token is None:
            self._limits.count_failure(client)
            raise Unauthenticated(_UNKNOWN)
        structlog.contextvars.bind_contextvars(token=str(token.id))
        if credentials.is_claim and credentials.token_id != token.id:
            self._limits.count_refusal(token.id)
            user = credentials.token_id or "not a UUID"
            raise Unauthenticated(_UNKNOWN, reason=f"the user name is {user}, which is not the id of this token")
        return token

    async def _find(self, key: Digest) -> Token | None:
        found_at, token = self._remembered.get(key, (-inf, None))
        age = self._clock() - found_at
        if age < TOKEN_FRESH:
            return token
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = asyncio.create_task(self._look_up(key))
        if age < TOKEN_MEMORY:
            looking.add_done_callback(_forgive)
            return token
        return await asyncio.shield(looking)  # other requests may wait for it after this client has disconnected

    async def _look_up(self, key: Digest) -> Token | None:
        started = self._clock()
        try:
            token = await self._store.find_token(key)
        finally:
            self._looking.pop(key, None)
        self._remembered[key] = (started, token)
        self._remembered.move_to_end(key)
        if len(self._remembered) > MAX_REMEMBERED_TOKENS:
            self._remembered.popitem(last=False)
        return token

    async def _take_over(self, credentials: Credentials, key: Digest, client: str) -> Token | None:
        """
        The token of an imported account whose password is presented for the first time.

        The bcrypt hash of the account is checked once, and then replaced by our own digest. A digest is cheap, so that
        no client can overload the service with it.
        """
        secret = credentials.secret.encode("utf-8", "surrogatepass")
        if credentials.token_id is None or len(secret) > MAX_HASHED:
            return None
        if b"\0" in secret:  # bcrypt repeats the password and a zero octet: pw and pw\0pw have the same hash
            return None
        hashed = await self._store.find_bcrypt(credentials.token_id)
        if hashed is None:  # there is no such account, or another request with this password just replaced its hash
            return await self._store.find_token(key)
        async with self._taking:
            _, token = self._remembered.get(key, (0.0, None))
            if token is not None:  # another request with this password was first
                return token
            self._limits.count_guess(client, credentials.token_id)
            if not await asyncio.to_thread(bcrypt.checkpw, secret, hashed):
                return None
            await self._store.settle_bcrypt(credentials.token_id, hashed, key)
            return await self._look_up(key)


def presented(request: web.Request) -> Credentials:
    """
    The credentials in the headers of a request: acme-dns's X-Api-User and X-Api-Key, Bearer, or the password of Basic.

    If acme-dns's two headers are there, Authorization is ignored: it is for a proxy. Raises `Unauthenticated`.
    """
    key, user = request.headers.get("X-Api-Key"), request.headers.get("X-Api-User")
    if key and user is not None:
        return Credentials(key, _token_id(user), is_claim=True)
    if len(request.headers.getall("Authorization", ())) > 1:
        raise Unauthenticated("there are several Authorization headers: send one")
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return Credentials(credentials.strip())
    if scheme.lower() == "basic":
        return _basic(credentials)
    if key:
        return Credentials(key)
    raise Unauthenticated(
        "the request has no token: send it as Authorization: Bearer rsp_..., or as the password of Basic authentication"
    )


def _basic(credentials: str) -> Credentials:
    try:
        user, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise Unauthenticated("the Authorization header is not valid Basic authentication") from None
    return Credentials(password, _token_id(user))


def _token_id(user: str) -> UUID | None:
    try:
        return UUID(user)
    except ValueError:
        return None


def _forgive(look_up: asyncio.Task[Token | None]) -> None:
    """Ignore the error of a look-up that no request waits for: the next look-up reports it."""
    if not look_up.cancelled():
        look_up.exception()
