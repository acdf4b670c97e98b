"""
The API of acme-dns: `/update`, `/register` and `/health`, with the same statuses and bodies as acme-dns.

Clients of acme-dns send any Content-Type, member names in any letter case, and `null` for an empty body; some read
responses with `sed`. So this module reads and writes its own bodies, and does not use `bodies` and `problems`. An
account is a token: the user name is the id of the token, the password its secret, and `subdomain` a challenge name of
one of its grants, relative to the apex of its zone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler

from responder.api.authentication import Authenticator
from responder.api.bodies import read_octets
from responder.api.problems import (
    KIND,
    RETRY_AFTER,
    SLASHES,
    STATUSES,
    for_http,
    log_unavailable,
    note_hostname,
    note_reason,
)
from responder.challenges import Challenges
from responder.config import RegistrationSettings
from responder.errors import (
    InvalidName,
    InvalidRequest,
    NotCovered,
    Refused,
    TooManyRequests,
    Unavailable,
    WrongAccount,
    by_ancestry,
)
from responder.limits import Limits
from responder.names import Name
from responder.store import AuditAction, NewToken, Store
from responder.tokens.network import Network, is_within, parse_network
from responder.tokens.secret import digest, mint_secret
from responder.tokens.token import Grant, Token
from responder.tokens.values import is_digest

MAX_ACCOUNT_NETWORKS = 50
"""Networks that an account may be limited to."""

ACME_DNS_PATHS = {"update", "register", "health"}
"""The paths of acme-dns, without the one or two slashes in front."""


class Fault(Exception):
    """An error response as acme-dns sends it."""

    def __init__(self, status: int, error: str, *, kind: str | None = None, retry_after: str | None = None) -> None:
        super().__init__(error)
        self.response = _json({"error": error}, status)
        self.response[KIND] = kind or error
        if retry_after is not None:
            self.response.headers["Retry-After"] = retry_after


_HTTP_ERRORS = {413: "request_entity_too_large"}
"""Errors that Python names differently in its versions: they are the same here in all of them."""


@web.middleware
async def respond_as_acme_dns(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On the paths of acme-dns, turn errors into the ones of acme-dns: its clients read the member `error`."""
    if request.path.removeprefix("/").removeprefix("/") not in ACME_DNS_PATHS:
        return await handler(request)
    try:
        return await handler(request)
    except Fault as fault:
        return fault.response
    except web.HTTPException as error:  # no such route or method; a body too large, or too slow
        name = _HTTP_ERRORS.get(error.status, error.reason.lower().replace(" ", "_"))
        response = Fault(error.status, name, kind=for_http(error)[KIND]).response
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (InvalidRequest, Refused, Unavailable) as error:
        note_reason(error)
        return _translate(error).response


def _translate(error: InvalidRequest | Refused | Unavailable) -> Fault:
    """The error of acme-dns for *error*. acme-dns has none for 429, 503 and pinned tokens: these texts are our own."""
    _, kind = by_ancestry(error, STATUSES)
    match error:
        case InvalidRequest():
            return Fault(400, "malformed_json_payload", kind=kind)
        case TooManyRequests():
            return Fault(429, "too_many_requests", kind=kind, retry_after=str(error.retry_after))
        case WrongAccount():
            return Fault(403, str(error), kind=kind)
        case Refused():
            return Fault(401, "forbidden", kind=kind)
        case Unavailable():  # acme-dns sends 401, and users then register all their accounts again
            log_unavailable(error)
            return Fault(503, "db_error", kind=kind, retry_after=RETRY_AFTER)


class AcmeDns:
    """The handlers of acme-dns's routes. New accounts are made in the zone of *apex*."""

    def __init__(
        self,
        store: Store,
        challenges: Challenges,
        authenticator: Authenticator,
        limits: Limits,
        *,
        apex: Name,
        registration: RegistrationSettings,
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._authenticator = authenticator
        self._limits = limits
        self._apex = apex
        self._registration = registration

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes, also with two slashes: many clients send two if their base URL ends with a slash."""
        for slash in SLASHES:
            router.add_post(f"{slash}update", self.update)
            router.add_get(f"{slash}health", self.health)
            if self._registration.enabled:
                router.add_post(f"{slash}register", self.register)

    async def update(self, request: web.Request) -> web.Response:
        """Present a value. This API has no cleanup, so a full name loses its oldest value."""
        token = await self._authenticator.admit(request, AuditAction.PRESENT)
        body = _parse(await read_octets(request))
        try:
            grant = self._grant(token, body.get("subdomain"))
        except Refused as refusal:
            self._challenges.note_refusal(token, AuditAction.PRESENT, refusal, client=request.remote or "")
            raise
        value = body.get("txt")
        if not isinstance(value, str) or not is_digest(value):
            raise Fault(400, "bad_txt")
        outcome = await self._challenges.present(token, grant, value, client=request.remote or "", evict_oldest=True)
        note_hostname(grant, outcome)
        return _json({"txt": value})

    async def register(self, request: web.Request) -> web.Response:
        """Make an account with a random name, if the client's address may register one."""
        client = request.remote or ""
        allowed = self._registration.allow_from
        if allowed and not is_within(client, allowed):
            raise Fault(403, f"registration is not open to your address ({client})", kind="wrong-network")
        networks = _networks(_parse(await read_octets(request)).get("allowfrom"))
        self._limits.count_registration(client)
        label = str(uuid4())
        name = Name.from_labels([label.encode(), *self._apex.labels])
        secret = mint_secret()
        token = await self._store.mint(
            NewToken(
                digest=digest(secret),
                grants=(Grant(hostname=name, challenge_name=name, apex=self._apex),),
                created_at=datetime.now(UTC),
                description=f"registered from {client}",
                allow_from=tuple(network for network, _ in networks),
            )
        )
        await self._challenges.follow()
        return _json(
            {
                "username": str(token.id),
                "password": secret,
                "fulldomain": str(name),
                "subdomain": label,
                "allowfrom": [text for _, text in networks],
            },
            201,
        )

    async def health(self, _: web.Request) -> web.Response:
        """Report that the API is running; `/readyz` on the admin listener reports more."""
        return web.Response(content_type="application/json")

    def _grant(self, token: Token, subdomain: object) -> Grant:
        """
        The grant for *subdomain*, which is a challenge name, either whole or without the apex of its zone.

        Raises `NotCovered`, also if *subdomain* is not a name or if it matches two grants.
        """
        if not isinstance(subdomain, str):
            raise NotCovered("the body has no subdomain")
        candidates = [f"{subdomain}.{apex}" for apex in {grant.apex for grant in token.grants}] + [subdomain]
        found = {grant.challenge_name: grant for text in candidates if (grant := _covering(token, text)) is not None}
        if len(found) != 1:
            raise NotCovered(f"this token has no grant, or more than one, for the subdomain {subdomain[:253]!r}")
        return next(iter(found.values()))


def _covering(token: Token, text: str) -> Grant | None:
    try:
        grant = token.grant_for(Name.parse(text))
    except (InvalidName, NotCovered):
        return None
    return grant


def _parse(octets: bytes) -> dict[str, Any]:
    """
    The members of a JSON object, with names in lower case (goacmedns up to 0.1.1 sends `SubDomain` and `Txt`).

    An empty body and `null` count as an empty object (goacmedns 0.2.0). Raises `InvalidRequest`.
    """
    if not octets.strip():
        return {}
    try:
        data = json.loads(octets.decode())
        if data is None:
            return {}
        members = {name.lower(): value for name, value in data.items()}
    except (ValueError, RecursionError, AttributeError):
        raise InvalidRequest(["the body is not a JSON object"]) from None
    if len(members) < len(data):
        raise InvalidRequest(["a member occurs twice, in different letter case"])
    return members


def _networks(listed: object) -> list[tuple[Network, str]]:
    """
    The networks in `allowfrom`, each with the text that was sent.

    As in acme-dns, brackets and bits beyond the prefix are accepted; an address without a prefix is rejected.
    """
    if listed is None:
        return []
    if not isinstance(listed, list) or len(listed) > MAX_ACCOUNT_NETWORKS:
        raise Fault(400, "invalid_allowfrom_cidr")
    return [(_network(text), text) for text in listed]


def _network(text: object) -> Network:
    if isinstance(text, str) and "/" in text:
        try:
            return parse_network(text.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            pass
    raise Fault(400, "invalid_allowfrom_cidr")


def _json(data: dict[str, Any], status: int = 200) -> web.Response:
    """A response with *data* as one line of JSON without a newline at its end, as acme-dns writes it."""
    return web.json_response(data, status=status)
