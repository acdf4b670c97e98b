"""The HTTP edge as clients meet it: a real server on a loopback port, a real database, and what the DNS shows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
import structlog
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from responder.api import (
    Authenticator,
    Probed,
    authentication,
    bodies,
    build_admin,
    build_api,
    build_runner,
    health,
    problems,
)
from responder.config import ApiSettings, RegistrationSettings
from responder.connections import connection
from responder.dns.exchange import Exchange
from responder.dns.wire import Transport
from responder.errors import Refused, StoreOutdated, StoreUnavailable
from responder.limits import Limits
from responder.logs import REMINDER, Seldom
from responder.names import Name
from responder.store import MAX_VALUES, AuditAction, AuditResult
from responder.tls.keypair import KeyPair
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.serving import Serving
from responder.tokens.token import Token
from tests.support.apis import serving
from tests.support.keypairs import key_pair
from tests.support.processes import PATIENCE
from tests.support.service import APEX, LIFETIME, SERVING, Control, grant, rows, running, until, url
from tests.support.zones import made

__all__ = ["running", "url"]

HOST, OTHER = "some.example.com", "other.example.com"
CHALLENGE = "_acme-challenge.some.acme.example.com."
OWN = "_acme-challenge.some.example.com."
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"
FAULTLESS = {"fqdn": OWN, "value": VALUE}
MAX_LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Any
    body: Any


@dataclass(frozen=True)
class Api:
    """The API on a port of its own, and a token for `some.example.com`."""

    running: Control
    port: int
    session: aiohttp.ClientSession
    secret: Secret
    token: Token

    async def ask(self, method: str, path: str, **how: Any) -> Reply:
        """One request, with the token unless *how* says otherwise."""
        how.setdefault("headers", {"Authorization": f"Bearer {self.secret}"})
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **how) as response:
            return Reply(response.status, response.headers, json.loads(await response.read()))

    async def present(self, fqdn: str = OWN, value: str = VALUE, **how: Any) -> Reply:
        return await self.ask("POST", "/present", json={"fqdn": fqdn, "value": value}, **how)

    async def cleanup(self, fqdn: str = OWN, value: str = VALUE, **how: Any) -> Reply:
        return await self.ask("POST", "/cleanup", json={"fqdn": fqdn, "value": value}, **how)

    async def refused(self, expected: tuple[int, str], **how: Any) -> Reply:
        """A present that is refused, and leaves the database as it was."""
        before = rows(self.running.directory)
        reply = await self.ask("POST", "/present", **how)
        assert before == rows(self.running.directory)
        assert_problem(expected, reply)
        return reply

    async def raw(self, octets: bytes) -> Reply:
        """Send *octets*, whatever they are, and read what comes back until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(octets)
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            body = json.loads(await reader.readexactly(int(headers["Content-Length"])))
            return Reply(int(first.split()[1]), headers, body)
        finally:
            writer.close()
            await writer.wait_closed()


def assert_problem(expected: tuple[int, str], reply: Reply) -> None:
    """The reply is a problem document of that status and type (RFC 9457)."""
    status, kind = expected
    assert (status, "application/problem+json") == (reply.status, reply.headers["Content-Type"].partition(";")[0])
    assert (status, f"urn:responder:problem:{kind}") == (reply.body["status"], reply.body["type"])
    assert {"type", "title", "status", "detail"} <= reply.body.keys() <= {"type", "title", "status", "detail", "faults"}
    assert "responder" == reply.headers["Server"]


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for in vain; what is asked whether it is well has all the time."""
    monkeypatch.setattr(connection, "LINGER", 0.1)
    monkeypatch.setattr(health, "PROBE_DEADLINE", PATIENCE)


@pytest.fixture
def settings() -> ApiSettings:
    """The defaults."""
    return ApiSettings()


@pytest.fixture
async def served(running: Control, settings: ApiSettings, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Api]:
    """The API. Whatever a test does with it, no secret may come into a log."""
    secret, token = await running.mint(HOST)
    caplog.set_level(logging.DEBUG, "aiohttp")
    app = build_api(
        running.store,
        running.challenges,
        Limits(settings),
        settings,
        apex=APEX,
        serving=SERVING,
        max_lifetime=MAX_LIFETIME,
    )
    with structlog.testing.capture_logs() as logs:
        async with listening(app) as port, aiohttp.ClientSession() as session:
            yield Api(running, port, session, secret, token)
    for written in (repr(logs), caplog.text):
        assert secret not in written
        assert base64.b64encode(f"x:{secret}".encode()).decode()[4:40] not in written
        assert VALUE not in written


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[int]:
    """*app* on a loopback port."""
    runner = build_runner(app, name="api", drain=0.1)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await runner.listen(listener)
        try:
            yield listener.getsockname()[1]
        finally:
            await runner.cleanup()


# present and cleanup


async def test_present_and_cleanup(served: Api) -> None:
    """The DNS shows a value before the caller reads 200, and no longer after its cleanup, and the body says so."""
    presented = await served.present()

    assert {VALUE} == served.running.values(HOST)
    assert 200 == presented.status
    assert "application/json" == presented.headers["Content-Type"].partition(";")[0]
    assert {
        "fqdn",
        "challenge_name",
        "value",
        "serial",
        "expires_at",
        "confirmed",
        "unconfirmed",
    } == presented.body.keys()
    assert (["a"], []) == (presented.body["confirmed"], presented.body["unconfirmed"])
    assert (OWN, CHALLENGE, VALUE) == tuple(presented.body[name] for name in ("fqdn", "challenge_name", "value"))
    assert (served.running.clock.now + LIFETIME).isoformat() == presented.body["expires_at"]
    assert next(iter(served.running.snapshots[-1])).serial == presented.body["serial"]
    cleaned = await served.cleanup()
    assert set() == served.running.values(HOST)
    assert {
        "fqdn": OWN,
        "challenge_name": CHALLENGE,
        "value": VALUE,
        "serial": next(iter(served.running.snapshots[-1])).serial,
        "expires_at": None,
        "confirmed": ["a"],
        "unconfirmed": [],
    } == cleaned.body


@pytest.mark.parametrize("fqdn", [CHALLENGE, CHALLENGE[:-1], OWN, OWN[:-1], CHALLENGE.upper(), OWN.title()])
async def test_spellings_of_the_name(served: Api, fqdn: str) -> None:
    """
    Our name and the user's own mean the same grant, in any letter case, with or without the dot at the end.

    The response has the name as it was sent: Caddy's acmeproxy module compares it.
    """
    reply = await served.present(fqdn)

    assert (200, fqdn, CHALLENGE) == (reply.status, reply.body["fqdn"], reply.body["challenge_name"])
    assert {VALUE} == served.running.values(HOST)
    assert 200 == (await served.cleanup(fqdn)).status
    assert set() == served.running.values(HOST)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_ways_to_send_the_token(served: Api) -> None:
    """Bearer and Basic in any letter case, any user name or the token's id, and acme-dns's headers."""
    secret = served.secret
    ways = [
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": f"bearer {secret}"},
        {"authorization": f"BEARER  {secret} "},
        basic("", secret),
        basic("anybody at all", secret),
        basic(str(served.token.id), secret),
        {"Authorization": basic("x", secret)["Authorization"].replace("Basic", "bASIC")},
        {"X-Api-User": str(served.token.id), "X-Api-Key": secret},
        {"X-Api-Key": secret},
        {"Authorization": f"Bearer {secret}", "X-Api-Key": "ignored"},
    ]

    assert [200] * len(ways) == [(await served.present(headers=headers)).status for headers in ways]
    assert {VALUE} == served.running.values(HOST)


async def test_repeating_is_fine(served: Api) -> None:
    """Presenting twice is one value, cleaning up what is not there succeeds; neither raises the serial."""
    first, second = await served.present(), await served.present()
    assert (200, first.body["serial"]) == (second.status, second.body["serial"])
    assert {VALUE} == served.running.values(HOST)

    third, fourth = await served.cleanup(), await served.cleanup()

    assert (200, third.body["serial"]) == (fourth.status, fourth.body["serial"])
    assert first.body["serial"] < third.body["serial"]


async def test_values_of_apex_and_wildcard(served: Api) -> None:
    """A name holds several values, each cleaned up by itself; one more than it may hold is refused."""
    values = [f"v{n}" for n in range(MAX_VALUES)]
    assert {200} == {(await served.present(value=value)).status for value in values}
    assert set(values) == served.running.values(HOST)

    reply = await served.refused((409, "too-many-values"), json={"fqdn": OWN, "value": "one more"})

    assert "already has 16 values" in reply.body["detail"]
    assert 200 == (await served.cleanup(value="v3")).status
    assert set(values) - {"v3"} == served.running.values(HOST)


@pytest.mark.parametrize("seconds", [1, 90, 604_800])
async def test_lifetime(served: Api, seconds: int) -> None:
    """A caller may ask for a lifetime of its own."""
    reply = await served.ask("POST", "/present", json={"fqdn": OWN, "value": VALUE, "lifetime": seconds})

    until_when = served.running.clock.now + timedelta(seconds=seconds)
    assert (200, until_when.isoformat()) == (reply.status, reply.body["expires_at"])


NO_LIFETIMES = [0, -1, 604_801, 10**30, True, "90", 1.5]


async def test_refuses_lifetimes(served: Api, subtests: pytest.Subtests) -> None:
    """A lifetime is a whole number of seconds, within bounds."""
    for lifetime in NO_LIFETIMES:
        with subtests.test(lifetime=repr(lifetime)):
            reply = await served.refused((400, "invalid-request"), json={**FAULTLESS, "lifetime": lifetime})

            assert ["lifetime"] == [fault.split('"')[1] for fault in reply.body["faults"]]


@pytest.mark.parametrize("domain", [HOST, "Some.Example.COM.", "*.some.example.com"])
async def test_raw_mode(served: Api, domain: str) -> None:
    """In RAW mode the value is the digest of the key authorization (RFC 8555, section 8.4)."""
    key_authorization = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"

    reply = await served.ask(
        "POST", "/present", json={"domain": domain, "token": "t", "keyAuth": key_authorization, "lifetime": None}
    )

    expected = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM"
    digest = hashlib.sha256(key_authorization.encode()).digest()
    assert base64.urlsafe_b64encode(digest) == f"{expected}=".encode()
    assert (200, OWN, expected) == (reply.status, reply.body["fqdn"], reply.body["value"])
    assert CHALLENGE == reply.body["challenge_name"]
    assert {expected} == served.running.values(HOST)


HTTPREQ = {
    "lego": ("/{verb}", "User-Agent: goacme-lego/5.3.1", '{{"fqdn":"{fqdn}","value":"{value}"}}\n'),
    "acme.sh's acmeproxy": (
        "/{verb}",
        "User-Agent: acme.sh/3.1.4 (https://github.com/acmesh-official/acme.sh)",
        '{{"fqdn": "{fqdn}", "value": "{value}"}}',
    ),
    "acme.sh's acmeproxy, its endpoint ending in a slash": (
        "//{verb}",
        "User-Agent: acme.sh/3.1.4 (https://github.com/acmesh-official/acme.sh)",
        '{{"fqdn": "{fqdn}", "value": "{value}"}}',
    ),
    "libdns's acmeproxy, as in Caddy": (
        "/{verb}",
        "User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip",
        '{{"FQDN":"{fqdn}","Value":"{value}"}}\n',
    ),
}
"""The path, the headers and the body with which clients speak lego's httpreq."""


@pytest.mark.parametrize("client", HTTPREQ)
async def test_httpreq_as_clients_send_it(served: Api, client: str) -> None:
    """Each finds the value in the answer, in quotes, after present and cleanup; libdns the name, too."""
    path, head, body = HTTPREQ[client]
    authorization = basic(str(served.token.id), served.secret)["Authorization"]
    for verb, shown in (("present", {VALUE}), ("cleanup", set())):
        octets = body.format(fqdn=CHALLENGE, value=VALUE).encode()
        reply = await served.raw(
            f"POST {path.format(verb=verb)} HTTP/1.1\r\nHost: responder.example.com\r\n{head}\r\n"
            f"Authorization: {authorization}\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(octets)}\r\n\r\n".encode()
            + octets
        )
        assert (200, CHALLENGE, VALUE) == (reply.status, reply.body["fqdn"], reply.body["value"])
        assert shown == served.running.values(HOST)


async def test_member_names_in_any_case(served: Api) -> None:
    """As Go's servers read them, whose clients write them in their own way; what is there twice is not guessed at."""
    raw = {"Domain": HOST, "TOKEN": "t", "keyauth": "t.thumbprint", "Lifetime": 60}
    assert 200 == (await served.ask("POST", "/present", json=raw)).status
    reply = await served.refused((400, "invalid-request"), json={"fqdn": OWN, "FQDN": CHALLENGE, "value": VALUE})
    assert ["a key occurs twice in the body"] == reply.body["faults"]
    reply = await served.refused((400, "invalid-request"), json={"KEYAUTH": 5, "Domain": HOST, "token": "t"})
    assert ['"keyAuth": must be text'] == reply.body["faults"]


async def test_who_asks_is_who_is_connected(served: Api) -> None:
    """No header makes a request come from another address: there is no trusted proxy."""
    secret, _ = await served.running.mint(HOST, allow_from=(ip_network("192.0.2.0/24"),))
    forged = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"}

    reply = await served.present(headers={"Authorization": f"Bearer {secret}", **forged})

    assert_problem((403, "wrong-network"), reply)
    assert "your address (127.0.0.1): it is limited to 192.0.2.0/24" in reply.body["detail"]
    await served.present()
    events = await served.running.store.audit(datetime.now(UTC) - timedelta(hours=1))
    assert ["127.0.0.1"] == [event.client for event in events if event.action is AuditAction.PRESENT][-1:]


# The token and its state


async def test_token_route(served: Api) -> None:
    """A token's holder sees what it may do, and the values at its hostnames, but not the token."""
    await served.present()

    reply = await served.ask("GET", "/v1/token")

    assert 200 == reply.status
    assert {
        "id": str(served.token.id),
        "description": None,
        "hostnames": [
            {
                "hostname": HOST,
                "challenge_name": CHALLENGE[:-1],
                "cname": f"{OWN} 300 IN CNAME {CHALLENGE}",
                "served": True,
            }
        ],
        "expires_at": None,
        "allow_from": [],
        "account_thumbprint": None,
        "values": [
            {
                "hostname": HOST,
                "value": VALUE,
                "expires_at": (served.running.clock.now + LIFETIME).isoformat(),
            }
        ],
    } == reply.body


NO_TOKENS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Basic"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
    {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
    {"Authorization": "Basic caf\u00e9"},
    {"Authorization": "Bearer caf\u00e9"},
    {"Authorization": "Bearer rsp_unknown"},
    {"Authorization": "Digest username=x"},
    {"X-Api-Key": "rsp_unknown"},
    {"X-Api-Key": ""},
]


async def test_no_good_token(served: Api, subtests: pytest.Subtests) -> None:
    """Without a token that is known here nothing is done or recorded, and the client is told how to send it."""
    for headers in NO_TOKENS:
        with subtests.test(headers=repr(headers)):
            reply = await served.refused((401, "unauthenticated"), headers=headers, json={"fqdn": OWN, "value": VALUE})

            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
            assert not await refusals(served)


async def refusals(served: Api) -> list[tuple[Any, ...]]:
    """Refused requests that are on record."""
    events = await served.running.store.audit(datetime.now(UTC) - timedelta(hours=1))
    return [
        (event.action, event.token_id, event.client, event.reason)
        for event in events
        if event.result is AuditResult.REFUSED
    ]


async def until_refused(served: Api, reason: str) -> tuple[Any, ...]:
    """The record of the refusal for that reason, as soon as it is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for refusal in await refusals(served):
                if reason in refusal[-1]:
                    return refusal


async def test_expired_token(served: Api) -> None:
    """A token that has expired is refused, and that is put on record."""
    secret, token = await served.running.mint(HOST, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    reply = await served.refused(
        (401, "unauthenticated"), headers={"X-Api-Key": secret}, json={"fqdn": OWN, "value": VALUE}
    )

    assert "expired" in reply.body["detail"]
    recorded = await until_refused(served, "expired")
    assert (AuditAction.PRESENT, token.id, "127.0.0.1", reply.body["detail"]) == recorded
    assert_problem((401, "unauthenticated"), await served.ask("GET", "/v1/token", headers={"X-Api-Key": secret}))


async def test_revoked_token(served: Api) -> None:
    """A token revoked by another process can present nothing from that moment; soon it is known as revoked."""
    assert 200 == (await served.present()).status
    async with served.running.other_store() as other:
        await other.revoke(served.token.id, at=datetime.now(UTC))

    assert_problem((401, "unauthenticated"), await served.present())

    await until(lambda: served.running.values(HOST) is None)
    async with asyncio.timeout(PATIENCE):
        while "was revoked: ask" not in (await served.ask("GET", "/v1/token")).body.get("detail", ""):
            pass


async def test_a_secret_that_was_replaced(served: Api) -> None:
    """Rotated by another process without a grace, a token takes only its new secret from that moment, on each route."""
    assert 200 == (await served.present()).status
    secret = mint_secret()
    async with served.running.other_store() as other:
        await other.rotate(served.token.id, digest(secret), at=datetime.now(UTC), grace=timedelta(0))

    replies = [await served.present(), await served.cleanup(), await served.ask("GET", "/v1/token")]
    update = {"subdomain": "_acme-challenge.some", "txt": VALUE}
    headers = {"X-Api-User": str(served.token.id), "X-Api-Key": served.secret}
    acme_dns = await served.ask("POST", "/update", headers=headers, json=update)

    for reply in replies:
        assert_problem((401, "unauthenticated"), reply)
    assert (401, {"error": "forbidden"}) == (acme_dns.status, acme_dns.body)
    assert 200 == (await served.present(headers={"X-Api-Key": secret})).status


async def test_a_token_without_a_hostname(served: Api) -> None:
    """A hostname that another process takes from a token is not its own from that moment."""
    secret, token = await served.running.mint(HOST, OTHER)
    headers = {"X-Api-Key": secret}
    assert 200 == (await served.present(f"_acme-challenge.{OTHER}", headers=headers)).status
    async with served.running.other_store() as other:
        await other.deny(token.id, [Name.parse(OTHER)], at=datetime.now(UTC))

    assert_problem((403, "not-covered"), await served.present(f"_acme-challenge.{OTHER}", headers=headers))
    held = await served.ask("GET", "/v1/token", headers=headers)
    assert [HOST] == [each["hostname"] for each in held.body["hostnames"]]


class TestFewFailures:
    """An address may show three unknown tokens an hour, and a token may be refused three times."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings.model_validate({"limits": {"failures": "3/hour"}})

    async def test_failures_of_others_at_one_address(self, served: Api) -> None:
        """Behind an address with too many unknown tokens, one that was never used before is good all the same."""
        unknown = {"Authorization": "Bearer rsp_unknown"}
        for _ in range(3):
            assert_problem((401, "unauthenticated"), await served.ask("GET", "/v1/token", headers=unknown))
        limited = await served.ask("GET", "/v1/token", headers=unknown)

        assert_problem((429, "too-many-requests"), limited)
        assert limited.body["detail"].startswith("too many failed requests from your address")
        assert 0 < int(limited.headers["Retry-After"]) <= 3600
        assert 200 == (await served.present()).status

    async def test_a_token_that_is_refused_too_often(self, served: Api) -> None:
        """A token that was revoked has a number of refusals of its own: no other one waits for it, known or not."""
        secret, revoked = await served.running.mint("revoked.example.com")
        await served.running.store.revoke(revoked.id, at=datetime.now(UTC))
        dead = {"Authorization": f"Bearer {secret}"}
        for _ in range(3):
            assert_problem((401, "unauthenticated"), await served.ask("GET", "/v1/token", headers=dead))
        limited = await served.ask("GET", "/v1/token", headers=dead)

        assert_problem((429, "too-many-requests"), limited)
        assert limited.body["detail"].startswith("too many refused requests with this token")
        unknown = {"Authorization": "Bearer rsp_unknown"}
        assert_problem((401, "unauthenticated"), await served.ask("GET", "/v1/token", headers=unknown))
        assert 200 == (await served.present()).status

    async def test_a_token_with_another_name(self, served: Api) -> None:
        """A user name that is not the token's counts as a refusal of that token."""
        wrong = {"X-Api-User": "somebody", "X-Api-Key": served.secret}
        for _ in range(3):
            assert_problem((401, "unauthenticated"), await served.ask("GET", "/v1/token", headers=wrong))
        assert_problem((429, "too-many-requests"), await served.ask("GET", "/v1/token", headers=wrong))
        assert 200 == (await served.present()).status


async def test_a_token_is_remembered_for_a_moment(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst costs one look-up; what was learnt is forgotten within a second, and earlier if it is too much."""
    looked_up = []
    find_token = running.store.find_token

    async def counting(digest: Any) -> Any:
        looked_up.append(digest)
        return await find_token(digest)

    monkeypatch.setattr(running.store, "find_token", counting)
    monkeypatch.setattr(authentication, "MAX_REMEMBERED_TOKENS", 2)
    now = [100.0]
    authenticator = Authenticator(running.store, running.challenges, Limits(ApiSettings()), clock=lambda: now[0])
    secret, token = await running.mint(HOST)

    async def find(secret: str) -> Token | None:
        return await authenticator._find(digest(secret))

    assert [token] * 3 == [await find(secret) for _ in range(3)]
    assert 1 == len(looked_up)
    assert authentication.TOKEN_MEMORY < 1
    now[0] += authentication.TOKEN_MEMORY
    assert token == await find(secret)
    assert 2 == len(looked_up)
    assert [None, None] == [await find(unknown) for unknown in ("a", "b")]
    assert [None, None] == [await find(unknown) for unknown in ("a", "b")]
    assert 4 == len(looked_up)
    await find(secret)
    assert 5 == len(looked_up)


async def test_not_covered(served: Api) -> None:
    """A name that the token does not cover is refused; the text tells of this token's hostnames only."""
    await served.running.mint(OTHER)
    await until(lambda: served.running.values(OTHER) == set())

    for fqdn in (
        str(grant(OTHER).challenge_name),
        f"_acme-challenge.{OTHER}",
        "x." + OWN,
        "acme.example.com",
        ".",
    ):
        reply = await served.refused((403, "not-covered"), json={"fqdn": fqdn, "value": VALUE})
        name = fqdn.rstrip(".") or "."
        assert f"this token does not cover {name}: it covers {HOST}" == reply.body["detail"]
    reply = await served.refused((403, "not-covered"), json={"fqdn": HOST, "value": VALUE})
    assert f"{HOST} is a hostname: write its challenge name, _acme-challenge.{HOST}" == reply.body["detail"]
    assert set() == served.running.values(OTHER)
    recorded = await until_refused(served, f"{HOST} is a hostname")
    assert (AuditAction.PRESENT, served.token.id, "127.0.0.1") == recorded[:3]
    assert_problem((403, "not-covered"), await served.cleanup(f"_acme-challenge.{OTHER}"))
    async with asyncio.timeout(PATIENCE):
        while (await refusals(served))[-1][0] is not AuditAction.CLEANUP:
            pass


# Bodies


NOT_JSON = [
    b"",
    b"{",
    b"fqdn=x&value=y",
    b'{"fqdn": "x", "value": NaN}',
    b'{"fqdn": "x", "value": "y", "lifetime": -Infinity}',
    b"\xff\xfe{}",
    b'{"fqdn": "\xff"}',
    "{}".encode("utf-16"),
    b'{"lifetime": ' + b"9" * 5000 + b"}",
    b'{"fqdn": "a", "value": "b"} {}',
    b"{'fqdn': 'a'}",
]


@pytest.mark.parametrize("body", [b"[" * 8000 + b"]" * 8000, b'{"a":' * 2500 + b"1" + b"}" * 2500])
async def test_deeply_nested_bodies(served: Api, body: bytes) -> None:
    """However deep a body is nested, it is refused as malformed; which fault is found first depends on Python."""
    assert_problem((400, "invalid-request"), await served.ask("POST", "/present", data=body))


async def test_body_is_not_json(served: Api, subtests: pytest.Subtests) -> None:
    """What is not JSON is refused, in the same words whatever is wrong with it."""
    for body in NOT_JSON:
        with subtests.test(body=repr(body)):
            reply = await served.refused((400, "invalid-request"), data=body)

            assert 'the body is not JSON: send {"fqdn": "...", "value": "..."}' == reply.body["detail"]


NO_OBJECTS = [b"[]", b"null", b"1", b'"x"', b"true", b'[{"fqdn": "a", "value": "b"}]']


async def test_body_is_no_object(served: Api, subtests: pytest.Subtests) -> None:
    """Other JSON than an object is refused."""
    for body in NO_OBJECTS:
        with subtests.test(body=repr(body)):
            reply = await served.refused((400, "invalid-request"), data=body)

            assert reply.body["detail"].startswith("the body is not a JSON object")


LONG = "a" * 63


FAULTY: list[tuple[dict[str, Any], list[str] | None]] = [
    ({}, ['"fqdn" is missing', '"value" is missing']),
    ({"value": 5}, ['"fqdn" is missing', '"value": must be text']),
    ({"fqdn": None, "value": None}, ['"fqdn": must be text', '"value": must be text']),
    ({"fqdn": ["x"], "value": {}}, ['"fqdn": must be text', '"value": must be text']),
    (
        {"fqdn": "a..b", "value": "", "lifetime": 0},
        [
            '"lifetime": expected a number of seconds from 1 to 604800',
            "\"fqdn\": 'a..b' has an empty label (two dots in a row, or a dot at its start)",
            '"value": a challenge value is 1 to 255 printable ASCII characters',
        ],
    ),
    ({"fqdn": "", "value": VALUE}, ["\"fqdn\": '' has an empty label (two dots in a row, or a dot at its start)"]),
    ({"fqdn": LONG + "a", "value": VALUE}, None),
    ({"fqdn": ".".join([LONG] * 4), "value": VALUE}, None),
    ({"fqdn": "caf\u00e9.example.com", "value": VALUE}, None),
    ({"fqdn": "a b", "value": VALUE}, None),
    ({"fqdn": "a\n", "value": VALUE}, None),
    ({"fqdn": "\0", "value": VALUE}, None),
    ({"fqdn": "a\\", "value": VALUE}, None),
    ({"fqdn": "\ud800", "value": VALUE}, ['"fqdn": is not valid Unicode']),
    ({"fqdn": OWN, "value": "\udfff"}, ['"value": is not valid Unicode']),
    ({"fqdn": OWN, "value": "caf\u00e9"}, None),
    ({"fqdn": OWN, "value": "a\nb"}, None),
    ({"fqdn": OWN, "value": "a" * 256}, None),
    ({"keyAuth": 5}, ['"domain" is missing', '"token" is missing', '"keyAuth": must be text']),
    (
        {"domain": HOST, "token": "t", "keyAuth": ""},
        ['"keyAuth": is empty: send the key authorization (RFC 8555, section 8.1)'],
    ),
    *(
        (
            {"domain": HOST, "token": "t", "keyAuth": "k", **other},
            ['the body mixes two modes: send "fqdn" and "value", or "domain", "token" and "keyAuth", but not both'],
        )
        for other in ({"fqdn": OWN, "value": VALUE}, {"FQDN": OWN}, {"value": VALUE})
    ),
    ({"domain": "127.0.0.1", "token": "t", "keyAuth": "k"}, None),
    ({"domain": "com", "token": "t", "keyAuth": "k"}, None),
    ({"domain": HOST, "token": "t", "keyAuth": "\ud800"}, ['"keyAuth": is not valid Unicode']),
    ({"domain": HOST, "token": 5, "keyAuth": "k"}, ['"token": must be text']),
    ({"domain": HOST, "token": "\ud800", "keyAuth": "k"}, None),
]


async def test_faults_of_bodies(served: Api, subtests: pytest.Subtests) -> None:
    """Everything that is wrong with a body is reported at once, each fault with the key it is about."""
    for body, faults in FAULTY:
        with subtests.test(body=repr(body)):
            reply = await served.refused((400, "invalid-request"), json=body)

            if faults is None:
                assert 1 == len(reply.body["faults"])
                assert reply.body["faults"][0].split('"')[1] in body
            else:
                assert faults == reply.body["faults"]
            assert "; ".join(reply.body["faults"]) == reply.body["detail"]


async def test_repeated_keys(served: Api) -> None:
    """A key that occurs twice is refused: readers differ in which of the two they take."""
    reply = await served.refused(
        (400, "invalid-request"), data=f'{{"fqdn": "{OWN}", "value": "a", "value": "b"}}'.encode()
    )

    assert ["a key occurs twice in the body"] == reply.body["faults"]


async def test_other_keys_are_nobodys_business(served: Api) -> None:
    """Keys of later versions and of other modes do no harm; neither does the content type."""
    reply = await served.ask("POST", "/present", data=json.dumps({**FAULTLESS, "\ud800": 1, "domain": "x"}).encode())

    assert 200 == reply.status


async def test_large_bodies(served: Api) -> None:
    """A body above 16 KiB is refused, announced or not; one of just that size is read."""
    large = json.dumps({**FAULTLESS, "padding": "x" * (16 << 10)}).encode()

    async def in_chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 1000):
            yield large[at : at + 1000]

    await served.refused((413, "too-large"), data=large)
    await served.refused((413, "too-large"), data=in_chunks())
    padding = "x" * ((16 << 10) - len(json.dumps({**FAULTLESS, "padding": ""})))
    fitting = json.dumps({**FAULTLESS, "padding": padding}).encode()
    assert 200 == (await served.ask("POST", "/present", data=fitting)).status


def head(served: Api, *headers: str, line: str = "POST /present HTTP/1.1") -> bytes:
    """A request without its body."""
    lines = (line, "Host: x", f"Authorization: Bearer {served.secret}", *headers, "", "")
    return "\r\n".join(lines).encode()


async def test_slow_body(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not arrive in time is not waited for."""
    monkeypatch.setattr(bodies, "BODY_DEADLINE", 0.01)

    assert_problem((408, "timeout"), await served.raw(head(served, "Content-Length: 100") + b"{"))


BROKEN = [
    (["Transfer-Encoding: chunked"], b"ZZ\r\n"),
    (["Transfer-Encoding: chunked"], b"5\r\nabcdefghij\r\n0\r\n\r\n"),
]


async def test_broken_bodies(served: Api, subtests: pytest.Subtests) -> None:
    """A body that is not what its headers say is the client's fault, not ours."""
    for headers, body in BROKEN:
        with subtests.test(headers=repr(headers)):
            reply = await served.raw(head(served, *headers) + body)

            kind = reply.body["type"].rpartition(":")[2]
            assert kind in ("invalid-request", "malformed-http")
            assert_problem((400, kind), reply)
            assert 200 == (await served.present()).status


async def test_client_hangs_up(served: Api) -> None:
    """A client that goes away in the middle of its body brings out no fault."""
    with structlog.testing.capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head(served, "Content-Length: 100") + b'{"fqdn":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await until(lambda: any(log["event"] == "request" for log in logs))

    assert [(400, "info")] == [(log["status"], log["log_level"]) for log in logs if log["event"] == "request"]
    assert "unhandled exception while handling a request" not in [log["event"] for log in logs]


# Routes, and what is not HTTP


async def test_unknown_routes(served: Api) -> None:
    """What is not there is 404, whoever asks."""
    for path in ("/", "/present/", "/Present", "/v1", "/..%2f..%2fetc/passwd", "/livez"):
        assert_problem((404, "no-such-route"), await served.ask("GET", path, headers={}))


async def test_wrong_methods(served: Api) -> None:
    """A route that exists tells the methods that it takes."""
    for method, path, allowed in (
        ("GET", "/present", "POST"),
        ("DELETE", "/cleanup", "POST"),
        ("OPTIONS", "/present", "POST"),
        ("POST", "/v1/token", "GET, HEAD"),
    ):
        reply = await served.ask(method, path, headers={})
        assert_problem((405, "method-not-allowed"), reply)
        assert allowed == reply.headers["Allow"]


MALFORMED = [
    b"rsp_{secret}\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {secret}\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\0\r\n\r\n",
    b"POST /present HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nX-Api-Key: {secret}\r\n\r\n",
    b"POST /present HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\nX-Api-Key: {secret}\r\n\r\n",
    b"POST /present HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key: {secret}" + b"a" * 20_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
]


async def test_malformed_http(served: Api, subtests: pytest.Subtests) -> None:
    """What is not HTTP is refused in our words: neither the answer nor the log quotes it."""
    for request_ in MALFORMED:
        with subtests.test(request_=repr(request_)):
            reply = await served.raw(request_.replace(b"{secret}", served.secret.encode()))

            assert_problem((400, "malformed-http"), reply)
            assert "the request is not valid HTTP/1.1 (RFC 9112), or its head is too long" == reply.body["detail"]
            assert 200 == (await served.present()).status


async def test_expectations(served: Api) -> None:
    """A client may ask whether to send its body; any other expectation is refused."""
    body = json.dumps(FAULTLESS).encode()
    expecting = {"Authorization": f"Bearer {served.secret}"}
    assert 200 == (await served.ask("POST", "/present", headers=expecting, data=body, expect100=True)).status

    reply = await served.raw(head(served, "Expect: miracles", f"Content-Length: {len(body)}") + body)

    assert_problem((417, "expectation-failed"), reply)


async def test_fault_before_the_application(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a fault where no handler of ours is asked gives nothing away."""

    async def fail(*_: object) -> web.StreamResponse:
        raise RuntimeError("only for the log")

    monkeypatch.setattr(web.UrlDispatcher, "resolve", fail)

    assert_problem((500, "internal"), await served.ask("GET", "/v1/token"))


def test_half_an_answer() -> None:
    """If a part of an answer was sent already, there is none to follow."""
    request = SimpleNamespace(writer=SimpleNamespace(output_size=1))

    with pytest.raises(ConnectionError):
        connection.Connection.handle_error(cast("Any", None), cast("web.BaseRequest", request))


# Faults of ours


async def test_unavailable_store(served: Api) -> None:
    """Without the database a client is asked to come back; it learns nothing about the database."""
    with served.running.store.away():
        reply = await served.refused((503, "unavailable"), json=FAULTLESS, headers=basic("x", "rsp_other"))
        assert "5" == reply.headers["Retry-After"]
        assert "the service cannot do this now: try again later, which is safe" == reply.body["detail"]
    served.running.store.break_apply(StoreUnavailable("cannot use the database /var/secret/path.db"))
    later = await served.refused((503, "unavailable"), json=FAULTLESS)
    assert reply.body == later.body


async def test_internal_fault(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the program is logged, and not told."""

    async def fail(*_: object) -> Token:
        raise RuntimeError("only for the log")

    monkeypatch.setattr(Authenticator, "find", fail)

    reply = await served.refused((500, "internal"), json=FAULTLESS)

    assert "only for the log" not in json.dumps(reply.body)


def test_every_error_has_a_status() -> None:
    """What is ours and what is aiohttp's own."""
    assert (503, 403) == tuple(problems._problem_for(error).status for error in (StoreOutdated("x"), Refused("x")))
    assert 426 == problems.for_http(web.HTTPUpgradeRequired()).status


async def test_one_log_line_a_request(served: Api) -> None:
    """Every request is logged once, with what it was about and in a form that cannot command a terminal."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        await served.present()
        await served.present(fqdn="_acme-challenge.other.example.com.")
        await served.raw(b"GET /%1b%5B31m?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await served.raw(MALFORMED[2])

    requests = [log for log in logs if log["event"] == "request"]
    assert ["POST", "POST", "GET"] == [log["method"] for log in requests[:3]]
    assert [200, 403, 404, 400] == [log["status"] for log in requests]
    assert [None, "not-covered", "no-such-route", "malformed-http"] == [log.get("outcome") for log in requests]
    assert ["/present", "/present", "/%1b%5B31m"] == [log["path"] for log in requests[:3]]
    assert HOST == requests[0]["hostname"]
    assert {"127.0.0.1"} == {log["client"] for log in requests}


async def test_probes_do_not_fill_the_log(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health and metrics, which somebody asks for every few seconds for ever, are for the log when they fail, once."""
    monkeypatch.setattr(problems, "_lasting", Seldom(REMINDER))
    with structlog.testing.capture_logs() as logs:
        assert (200, None) == await get(served.port, "/health")
        await served.ask("POST", "/health", headers={})
        async with nameserver(served.running) as dns_port, listening(admin(served.running, dns_port)) as port:
            for path in ("/livez", "/readyz", "/metrics"):
                async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    assert 200 == answer.status
            with served.running.store.away():
                for _ in range(3):
                    assert 503 == (await get(port, "/readyz"))[0]

    assert [("/health", 405, "method-not-allowed"), ("/readyz", 503, "not-ready")] == [
        (log["path"], log["status"], log["outcome"])
        for log in logs
        if (log["event"], log["log_level"]) == ("request", "info")
    ]


# The description of the routes


@pytest.mark.parametrize("registers", [False, True])
async def test_openapi_describes_the_routes(running: Control, *, registers: bool) -> None:
    """Every route that is there is described, and nothing else; references lead somewhere; every problem is named."""
    settings = ApiSettings(registration=RegistrationSettings(enabled=registers))
    app = build_api(
        running.store,
        running.challenges,
        Limits(settings),
        settings,
        apex=APEX,
        serving=SERVING,
        max_lifetime=timedelta(hours=5),
    )
    async with (
        listening(app) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/openapi.json") as response,
    ):
        described = await response.json()
    routes = {
        (route.method.lower(), route.resource.canonical.replace("//", "/"))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == {(method, path) for path, methods in described["paths"].items() for method in methods}

    def references(node: Any) -> Iterator[str]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if isinstance(node, dict) and "$ref" in node:
            yield node["$ref"]
        for child in children:
            yield from references(child)

    for reference in references(described):
        found = described
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
    kinds = set(described["components"]["schemas"]["Problem"]["properties"]["type"]["enum"])
    assert {f"urn:responder:problem:{kind}" for _, kind in problems.STATUSES.values()} < kinds
    statuses = {int(status) for status in described["paths"]["/present"]["post"]["responses"]}
    assert {200, 408, 413, 415, 500} | {status for status, _ in problems.STATUSES.values()} - {404} == statuses
    assert registers == ("/register" in described["paths"])
    assert 5 * 3600 == described["components"]["schemas"]["Lifetime"]["maximum"]


async def test_what_the_description_allows(served: Api) -> None:
    """A number without a fraction is an integer, null stands for what was left out, and letter case for nothing."""
    body = {"fqdn": OWN, "value": VALUE, "lifetime": 60.0, "acme_token": None}
    assert 200 == (await served.ask("POST", "/present", json=body)).status
    assert 200 == (await served.ask("POST", "/present", json=body | {"lifetime": None})).status
    await served.refused((400, "invalid-request"), json=body | {"lifetime": 60.5})


# The admin listener


def admin(
    running: Control,
    *ports: int,
    apex: Name = APEX,
    api: str = "",
    conditions: Mapping[str, Callable[[], str]] | None = None,
) -> web.Application:
    """The application of the admin listener, which asks nameservers on these *ports*, and the *api* if there is one."""
    places = Probed(lambda: [("127.0.0.1", port) for port in ports], lambda: [api] if api else [])
    return build_admin(running.store, apex, places, lag=running.publisher.lag, conditions=conditions or {})


@asynccontextmanager
async def nameserver(running: Control, *, deaf: Transport | None = None) -> AsyncIterator[int]:
    """A nameserver on one port, UDP and TCP; one of the two may be deaf."""

    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            if deaf is not Transport.UDP:
                reply = made(Exchange(running.snapshots[-1]).respond(data, Transport.UDP, "127.0.0.1"))
                self.transport.sendto(reply, addr)

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if deaf is not Transport.TCP:
            packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            reply = made(Exchange(running.snapshots[-1]).respond(packet, Transport.TCP, "127.0.0.1"))
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
    try:
        yield port
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


async def get(port: int, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.json(content_type=None)


async def test_ready(running: Control) -> None:
    """Ready means: the database answers, and the nameserver answers for the zone over UDP and TCP."""
    async with (
        nameserver(running) as dns_port,
        listening(admin(running, dns_port)) as port,
    ):
        assert (200, {"alive": True}) == await get(port, "/livez")
        assert (200, {"store": "ok", "dns_udp": "ok", "dns_tcp": "ok", "api": "ok"}) == await get(port, "/readyz")
        assert 404 == (await get(port, "/present"))[0]


async def test_not_ready_without_database(running: Control) -> None:
    """Without the database the process lives, but is not ready."""
    async with (
        nameserver(running) as dns_port,
        listening(admin(running, dns_port)) as port,
    ):
        with running.store.away():
            status, checks = await get(port, "/readyz")
            assert (200, {"alive": True}) == await get(port, "/livez")

    assert (503, "ok", "ok") == (status, checks["dns_udp"], checks["dns_tcp"])
    assert checks["store"].startswith("failed: cannot use the database")


async def test_ready_but_for_what_is_excluded(running: Control) -> None:
    """A load balancer can ask for DNS alone, which goes on without the database; a check that is none is a fault."""
    async with (
        nameserver(running) as dns_port,
        listening(admin(running, dns_port)) as port,
    ):
        with running.store.away():
            expected = {"dns_udp": "ok", "dns_tcp": "ok", "api": "ok"}
            assert (200, expected) == await get(port, "/readyz?exclude=store")
        assert (200, {"dns_tcp": "ok", "api": "ok"}) == await get(port, "/readyz?exclude=store&exclude=dns_udp")
        status, problem = await get(port, "/readyz?exclude=database")

    assert (400, ["exclude: there is no check 'database': use one of store, dns_udp, dns_tcp"]) == (
        status,
        problem["faults"],
    )


@pytest.mark.parametrize("pair", [None, key_pair(HOST)])
async def test_state_of_the_api(running: Control, pair: KeyPair | None) -> None:
    """
    What DNS does not need is reported, the API as its clients find it among it, and counts only if it is asked for: DNS
    must not be taken out of service for it.
    """
    scheme = "https" if pair else "http"
    conditions = {"certificate": lambda: "it has expired"}
    async with nameserver(running) as dns_port, AsyncExitStack() as stack:
        api = f"{scheme}://127.0.0.1:{await stack.enter_async_context(serving(pair))}"
        ill = f"http://127.0.0.1:{await stack.enter_async_context(serving(status=503))}"
        with socket.create_server(("127.0.0.1", 0)) as closed:
            down = f"http://127.0.0.1:{closed.getsockname()[1]}"
        found = {}
        for url in (api, ill, down):
            async with listening(admin(running, dns_port, api=url, conditions=conditions)) as port:
                found[url] = await get(port, "/readyz")
                statuses = [(await get(port, f"/readyz?include={name}"))[0] for name in ("api", "certificate", "store")]
                assert [200 if url == api else 503, 503, 400] == statuses

    refused = "failed: the API does not accept connections: see the log of the service"
    assert {api: "ok", ill: "failed: the API responds with status 503", down: refused} == {
        url: checks["api"] for url, (_, checks) in found.items()
    }
    assert {(200, "ok", "it has expired")} == {
        (status, checks["store"], checks["certificate"]) for status, checks in found.values()
    }


@pytest.mark.parametrize(
    ("deaf", "expected"),
    [
        (
            Transport.UDP,
            {
                "store": "ok",
                "dns_udp": "failed: the nameserver does not answer within 1 seconds",
                "dns_tcp": "ok",
                "api": "ok",
            },
        ),
        (
            Transport.TCP,
            {
                "store": "ok",
                "dns_udp": "ok",
                "dns_tcp": "failed: the nameserver closes the connection without an answer",
                "api": "ok",
            },
        ),
    ],
)
async def test_not_ready_without_dns(
    running: Control, monkeypatch: pytest.MonkeyPatch, deaf: Transport, expected: dict[str, str]
) -> None:
    """A nameserver that does not answer is named, with the transport."""
    monkeypatch.setattr(health, "PROBE_DEADLINE", 1.0)
    async with (
        nameserver(running, deaf=deaf) as dns_port,
        listening(admin(running, dns_port)) as port,
    ):
        status, checks = await get(port, "/readyz")

    assert 503 == status
    assert expected == checks


async def test_not_ready_for_another_zone(running: Control) -> None:
    """A nameserver that answers for other zones only is not ours."""
    async with (
        nameserver(running) as dns_port,
        listening(admin(running, dns_port, apex=grant(HOST).hostname)) as port,
    ):
        status, checks = await get(port, "/readyz")

    wrong = "failed: the nameserver does not answer queries for the zone"
    assert (503, {"store": "ok", "dns_udp": wrong, "dns_tcp": wrong, "api": "ok"}) == (status, checks)


async def test_ready_at_every_address(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address at which nobody answers is enough to be not ready."""
    monkeypatch.setattr(health, "PROBE_DEADLINE", 1.0)
    async with (
        nameserver(running) as good,
        nameserver(running, deaf=Transport.UDP) as deaf,
        listening(admin(running, good, deaf)) as port,
    ):
        assert (503, "ok", "failed") == _brief(await get(port, "/readyz"))


def _brief(reply: tuple[int, dict[str, str]]) -> tuple[int, str, str]:
    status, checks = reply
    return status, checks["dns_tcp"], checks["dns_udp"][:6]


async def test_conditions(running: Control) -> None:
    """What DNS does not need is reported, and is a metric, but fails only the check of those who ask for it by name."""
    conditions = {"writing": lambda: "failed: the disk is full", "database": lambda: "ok"}
    async with nameserver(running) as dns_port, listening(admin(running, dns_port, conditions=conditions)) as port:
        well = {
            "store": "ok",
            "dns_udp": "ok",
            "dns_tcp": "ok",
            "database": "ok",
            "writing": "failed: the disk is full",
            "api": "ok",
        }
        assert (200, well) == await get(port, "/readyz")
        assert (200, well) == await get(port, "/readyz?include=database")
        assert (503, well) == await get(port, "/readyz?include=writing&include=database")
        assert 503 == (await get(port, "/readyz?exclude=store&include=writing"))[0]
        status, problem = await get(port, "/readyz?include=store&exclude=writing")
        assert 400 == status
        assert "exclude: there is no check 'writing': use one of store, dns_udp, dns_tcp" in str(problem)
        assert "include: there is no check 'store': use one of writing, database, api" in str(problem)
        samples = await _samples(port)
    assert (0, 1) == tuple(samples[f"responder_condition_ok {name}"] for name in ("writing", "database"))


async def test_metrics(served: Api) -> None:
    """Prometheus sees requests by route and outcome, values and tokens in place, transactions, and the nameservers."""
    await served.present()
    await served.present(fqdn="_acme-challenge.other.example.com")
    async with listening(admin(served.running)) as port:
        samples = await _samples(port)
    assert 1 == samples["responder_database_up"]
    assert 1 <= samples["responder_requests_total ok /present"]
    assert 1 <= samples["responder_requests_total not-covered /present"]
    assert 1 <= samples["responder_commit_seconds_count"]
    assert (1, 1, 0) == tuple(samples[f"responder_{name}"] for name in ("values", "tokens never", "tokens 1d"))
    assert 1 == samples["responder_nameservers"]
    assert 0 <= samples["responder_oldest_value_age_seconds"] < 3600


async def test_metrics_without_the_database(served: Api) -> None:
    """While the database is away, that is among the metrics, and so is all that others count."""
    await served.present()
    with served.running.store.away():
        async with listening(admin(served.running)) as port:
            await get(port, "/readyz")
            samples = await _samples(port)
    assert 0 == samples["responder_database_up"]
    assert math.isnan(samples["responder_values"])
    assert "responder_tokens never" not in samples
    assert 1 <= samples["responder_requests_total ok /present"]
    assert 1 <= samples["responder_requests_total not-ready /readyz"]

    async with listening(admin(served.running)) as port:
        samples = await _samples(port)
    assert (1, 1, 1) == tuple(samples[f"responder_{name}"] for name in ("database_up", "values", "tokens never"))


async def _samples(port: int) -> dict[str, float]:
    """What Prometheus would find there."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        assert (200, "text/plain; version=0.0.4; charset=utf-8") == (response.status, response.headers["Content-Type"])
        return {
            sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(await response.text())
            for sample in family.samples
        }


async def test_replies_end_as_lines_do(served: Api) -> None:
    """Whoever asks by hand has the prompt on a line of its own, whatever came of it."""
    async with aiohttp.ClientSession() as session, listening(admin(served.running)) as port:
        for at, method, path, status in (
            (served.port, "GET", "/v1/token", 200),
            (served.port, "POST", "/present", 200),
            (served.port, "GET", "/present", 405),
            (served.port, "GET", "/openapi.json", 200),
            (port, "GET", "/livez", 200),
            (port, "GET", "/readyz", 200),
            (port, "GET", "/nothing", 404),
            (port, "GET", "/metrics", 200),
        ):
            url, headers = f"http://127.0.0.1:{at}{path}", {"Authorization": f"Bearer {served.secret}"}
            async with session.request(method, url, headers=headers, json=FAULTLESS) as response:
                lines = (await response.text()).split("\n")
            assert (status, "") == (response.status, lines[-1]), path
            assert lines[-2], path


async def test_the_admin_listener_has_routes_of_its_own(running: Control) -> None:
    """Who asks it for anything else is told what there is."""
    async with listening(admin(running)) as port:
        status, problem = await get(port, "/openapi.json")
    assert (404, "there is no such route here: use /livez, /readyz or /metrics") == (status, problem["detail"])


async def test_a_head_that_does_not_come(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a whole request has to go after a while."""
    with monkeypatch.context() as patch:
        patch.setattr(connection, "HEAD_DEADLINE", 0.05)
        silent = await asyncio.open_connection("127.0.0.1", served.port)
        half = await asyncio.open_connection("127.0.0.1", served.port)
        half[1].write(b"POST /present HTTP/1.1\r\nHost: x\r\nX")
        for reader, writer in (silent, half):
            assert b"" == await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            await writer.wait_closed()

    assert 200 == (await served.present()).status


@pytest.mark.parametrize("route", ["present", "cleanup"])
@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "nonsense"])
async def test_compressed_bodies(served: Api, route: str, coding: str) -> None:
    """A body that is compressed, or claims to be, is refused before anything reads it (RFC 9110, section 15.5.16)."""
    headers = {"Authorization": f"Bearer {served.secret}", "Content-Encoding": coding}

    reply = await served.ask("POST", f"/{route}", data=json.dumps(FAULTLESS), headers=headers)

    assert_problem((415, "content-coding"), reply)
    assert "identity" == reply.headers["Accept-Encoding"]


async def test_a_coding_that_is_none(served: Api) -> None:
    """`identity` is the name of no coding at all."""
    headers = {"Authorization": f"Bearer {served.secret}", "Content-Encoding": "Identity"}
    assert 200 == (await served.ask("POST", "/present", data=json.dumps(FAULTLESS), headers=headers)).status


async def test_a_name_that_is_not_served_any_more(served: Api) -> None:
    """A grant in a zone that left the configuration gets a refusal, not a 200 that no nameserver stands behind."""
    served.running.challenges._serving = Serving(apexes=frozenset([Name.parse("other.example.net")]))

    reply = await served.present()

    assert_problem((403, "not-served"), reply)


async def test_two_authorization_headers(served: Api) -> None:
    """Which of two tokens is meant cannot be guessed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    one = f"Authorization: Bearer {served.secret}\r\n"
    writer.write(f"GET /v1/token HTTP/1.1\r\nHost: x\r\n{one}{one}Connection: close\r\n\r\n".encode())
    assert b"401" in await asyncio.wait_for(reader.readline(), PATIENCE)
    await reader.read()
    writer.close()
    await writer.wait_closed()
