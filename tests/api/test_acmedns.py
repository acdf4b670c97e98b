"""The API of acme-dns, by the octets that its clients send, and by what each of them makes of the answers."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID, uuid4

import bcrypt
import pytest
import structlog

from responder import metrics
from responder.api import build_api
from responder.config import ApiSettings, RegistrationSettings
from responder.connections import connection
from responder.errors import StoreUnavailable
from responder.limits import Limits
from responder.names import Name
from responder.store import MAX_VALUES, AuditAction, AuditResult, NewToken
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.token import Grant, Token
from tests.api.test_api import MAX_LIFETIME, listening
from tests.support.processes import PATIENCE
from tests.support.service import APEX, SERVING, Control, rows, running, until, url

__all__ = ["running", "url"]

HOST = "some.example.com"
SUBDOMAIN = "_acme-challenge.some"
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"
SECOND = "ThirdValueOfFortyThreeCharacters_abcdefghij"


@dataclass(frozen=True)
class Reply:
    """What came back, unread."""

    status: int
    head: str
    body: bytes


@dataclass(frozen=True)
class Served:
    """The API on a port of its own, and a token."""

    running: Control
    port: int
    secret: Secret
    token: Token

    async def send(self, head: str, body: str = "") -> Reply:
        """Send *head* (its lines ending as it is convenient here) and *body* as they are."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            lines = head.strip().splitlines()
            lines += [f"Content-Length: {len(body.encode())}", "Connection: close"]
            writer.write(("\r\n".join(map(str.strip, lines)) + "\r\n\r\n" + body).encode())
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        answered, _, octets = answer.partition(b"\r\n\r\n")
        return Reply(int(answered.split()[1]), answered.decode(), octets)

    async def update(
        self, subdomain: object = SUBDOMAIN, txt: object = VALUE, *, user: object = None, key: str | None = None
    ) -> Reply:
        user, key = user or self.token.id, key or self.secret
        head = f"POST /update HTTP/1.1\nHost: a\nX-Api-User: {user}\nX-Api-Key: {key}"
        return await self.send(head, json.dumps({"subdomain": subdomain, "txt": txt}))

    async def register(self, body: str = "", more: str = "") -> Reply:
        return await self.send(f"POST /register HTTP/1.1\nHost: a\n{more}", body)


@pytest.fixture
def settings() -> ApiSettings:
    """Registration is open."""
    return ApiSettings(registration=RegistrationSettings(enabled=True))


@pytest.fixture
async def served(running: Control, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """The API, and a token for `some.example.com`; no secret may come into a log."""
    monkeypatch.setattr(connection, "LINGER", 0.1)
    secret, token = await running.mint(HOST)
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
        async with listening(app) as port:
            yield Served(running, port, secret, token)
    assert secret not in repr(logs)


# What clients send


def _posts(served: Served) -> dict[str, tuple[str, str]]:
    user, key = served.token.id, served.secret
    return {
        "goacmedns 0.2.0, as in lego and cert-manager": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            User-Agent: cpu-goacmedns/0.2.0 (+https://github.com/nrdcg/goacmedns)
            Content-Type: application/json
            Accept: application/json
            X-Api-Key: {key}
            X-Api-User: {user}
            Accept-Encoding: gzip""",
            f'{{"subdomain":"{SUBDOMAIN}","txt":"{VALUE}"}}\n',
        ),
        "goacmedns 0.1.1, as in cert-manager up to 1.18": (
            f"""POST //update HTTP/1.1
            Host: auth.example.com
            User-Agent: cpu-goacmedns/0.1.1 (linux; amd64)
            Content-Type: application/json
            X-Api-Key: {key}
            X-Api-User: {user}
            Accept-Encoding: gzip""",
            f'{{"SubDomain":"{SUBDOMAIN}","Txt":"{VALUE}"}}',
        ),
        "acme.sh by curl": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            User-Agent: acme.sh/3.1.0 (https://github.com/acmesh-official/acme.sh)
            Accept: */*
            X-Api-User: {user}
            X-Api-Key: {key}
            Content-Type: application/x-www-form-urlencoded""",
            f'{{"subdomain":"{SUBDOMAIN}", "txt": "{VALUE}"}}',
        ),
        "Certify": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            x-api-user: {user}
            x-api-key: {key}
            Authorization: Basic dXNlcjpwYXNz_-
            Content-Type: text/plain; charset=utf-8""",
            f'{{"subdomain":"{SUBDOMAIN}","txt":"{VALUE}"}}',
        ),
        "Posh-ACME": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            Authorization: Basic Og==
            X-Api-Key: {key}
            X-Api-User: {user}
            Content-Type: application/json""",
            f'{{"subdomain":"{SUBDOMAIN}","txt":"{VALUE}"}}',
        ),
        "simple-acme": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            X-Api-User: {user}
            X-Api-Key: {key}
            Content-Type: application/json; charset=utf-8""",
            f'{{"subdomain":"{SUBDOMAIN}","txt":"{VALUE}"}}',
        ),
        "libdns, as in Caddy": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            User-Agent: Go-http-client/1.1
            X-Api-Key: {key}
            X-Api-User: {user}
            Accept-Encoding: gzip""",
            f'{{"subdomain":"{SUBDOMAIN}","txt":"{VALUE}"}}',
        ),
        "pyacmedns, as in certbot's plugins": (
            f"""POST /update HTTP/1.1
            Host: auth.example.com
            User-Agent: python-requests/2.32.3
            Accept-Encoding: gzip, deflate
            Accept: */*
            X-Api-User: {user}
            X-Api-Key: {key}
            Content-Type: application/json""",
            f'{{"subdomain": "{SUBDOMAIN}", "txt": "{VALUE}"}}',
        ),
        "an account in braces and another spelling": (
            f"POST /update HTTP/1.1\nHost: a\nX-API-USER: {{{str(user).upper()}}}\nX-API-KEY: {key}",
            f'{{"SUBDOMAIN":"{SUBDOMAIN.upper()}.ACME.example.com","TXT":"{VALUE}"}}',
        ),
    }


async def test_update_as_clients_send_it(served: Served, subtests: pytest.Subtests) -> None:
    """Each gets exactly 200 and one line in which acme.sh finds the value in quotes, and the value is served."""
    for client, (head, body) in _posts(served).items():
        with subtests.test(client):
            reply = await served.send(head, body)
            assert (200, f'{{"txt": "{VALUE}"}}'.encode()) == (reply.status, reply.body)
            assert "Content-Type: application/json" in reply.head
            assert {VALUE} == served.running.values(HOST)


async def test_updates_of_apex_and_wildcard(served: Served) -> None:
    """Two values are visible together, repeating one evicts nobody, and a full name loses its oldest only."""
    await served.update(txt=VALUE)
    await served.update(txt=SECOND)
    await served.update(txt=SECOND)
    assert {VALUE, SECOND} == served.running.values(HOST)
    others = [f"{number:02}" + VALUE[2:] for number in range(MAX_VALUES - 2)]
    for value in others:
        assert 200 == (await served.update(txt=value)).status
    assert {VALUE, SECOND, *others} == await _stored(served)
    assert 200 == (await served.update(txt="z" * 43)).status
    left = await _stored(served)
    assert (MAX_VALUES, True) == (len(left), "z" * 43 in left)


async def _stored(served: Served) -> set[str]:
    return {value.value for value in await served.running.store.values(served.token.id)}


async def test_updates_that_are_refused(served: Served, subtests: pytest.Subtests) -> None:
    """Statuses and bodies are acme-dns's own; nothing changes, and what a known token was refused is on record."""
    forbidden, bad_txt, malformed = (401, "forbidden"), (400, "bad_txt"), (400, "malformed_json_payload")
    head = f"POST /update HTTP/1.1\nHost: a\nX-Api-User: {served.token.id}\nX-Api-Key: {served.secret}"
    other_secret, other = await served.running.mint("other.example.com")
    await until(lambda: served.running.values("other.example.com") == set())
    cases = {
        "another's user": (forbidden, served.update(user=other.id)),
        "no UUID": (forbidden, served.update(user="me")),
        "an unknown key": (forbidden, served.update(key=mint_secret())),
        "another's subdomain": (forbidden, served.update("_acme-challenge.other")),
        "another's key": (forbidden, served.update(user=other.id, key=other_secret)),
        "no subdomain": (forbidden, served.update(None)),
        "a subdomain that is no name": (forbidden, served.update("a..b")),
        "no headers": (forbidden, served.send("POST /update HTTP/1.1\nHost: a", "{}")),
        "null": (forbidden, served.send(head, "null\n")),
        "nothing": (forbidden, served.send(head)),
        "a short value": (bad_txt, served.update(txt="short")),
        "a value too long": (bad_txt, served.update(txt=VALUE + "A")),
        "a value with an end of line": (bad_txt, served.update(txt=VALUE[1:] + "\n")),
        "another alphabet": (bad_txt, served.update(txt="+" + VALUE[1:])),
        "no value": (bad_txt, served.update(txt=None)),
        "no JSON": (malformed, served.send(head, "subdomain=x&txt=y")),
        "no object": (malformed, served.send(head, '["subdomain"]')),
        "no Unicode": (malformed, served.send(head, "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"))),
        "twice": (malformed, served.send(head, '{"txt": "a", "Txt": "b"}')),
        "too much": ((413, "request_entity_too_large"), served.send(head, "x" * (17 << 10))),
    }
    before = rows(served.running.directory)
    for case, ((status, error), sending) in cases.items():
        with subtests.test(case):
            reply = await sending
            assert (status, json.dumps({"error": error}).encode()) == (reply.status, reply.body)
    assert before == rows(served.running.directory)
    assert set() == served.running.values(HOST) == served.running.values("other.example.com")
    await until_recorded(served, "no grant, or more than one, for the subdomain '_acme-challenge.other'")


async def until_recorded(served: Served, text: str) -> None:
    """Wait until a refusal with that reason is in the audit."""
    while not any(  # noqa: ASYNC110  # it is in a database
        event.result is AuditResult.REFUSED and event.action is AuditAction.PRESENT and text in (event.reason or "")
        for event in await served.running.store.audit(served.token.created_at)
    ):
        await asyncio.sleep(0.01)


async def test_update_from_elsewhere(served: Served) -> None:
    """A token that is for other networks is forbidden."""
    secret, token = await served.running.mint(HOST, allow_from=(ip_network("192.0.2.0/24"),))
    reply = await served.update(user=token.id, key=secret)
    assert (401, b'{"error": "forbidden"}') == (reply.status, reply.body)


async def test_update_with_a_pinned_token(served: Served) -> None:
    """This route cannot carry ACME's token, and says which one can."""
    secret, token = await served.running.mint(HOST, account_thumbprint="t" * 43)
    reply = await served.update(user=token.id, key=secret)
    assert 403 == reply.status
    assert "pinned to an ACME account: use POST /present" in json.loads(reply.body)["error"]
    assert not served.running.values(HOST)


async def test_two_names_with_one_subdomain(served: Served) -> None:
    """A token with several names updates the one that is meant; what could mean none or two is forbidden."""
    secret, token = await served.running.mint(HOST, "more.example.com")
    assert 200 == (await served.update("_acme-challenge.more", user=token.id, key=secret)).status
    whole = "_acme-challenge.more.acme.example.com."
    assert 200 == (await served.update(whole, SECOND, user=token.id, key=secret)).status
    assert {VALUE, SECOND} == served.running.values("more.example.com")
    assert 401 == (await served.update("_acme-challenge", user=token.id, key=secret)).status


async def test_trouble_with_the_store(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 503 and worth another try, never 401, upon which people register everything anew."""

    async def fail(_: object) -> Token:
        raise StoreUnavailable("the disk is on fire")

    monkeypatch.setattr(served.running.store, "find_token", fail)
    reply = await served.update()
    assert (503, b'{"error": "db_error"}') == (reply.status, reply.body)
    assert "Retry-After: 5" in reply.head


async def test_another_method(served: Served) -> None:
    """What is asked by another method is refused in acme-dns's words, too."""
    for path in ("/update", "//update", "/register", "/health"):
        reply = await served.send(f"PUT {path} HTTP/1.1\nHost: a")
        assert (405, b'{"error": "method_not_allowed"}') == (reply.status, reply.body)
        assert "Allow: " in reply.head


async def test_metrics_name_troubles_as_on_other_routes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches for outcomes need not know which route clients use."""
    before = _outcomes()
    with served.running.store.away():
        await served.update()
    await served.update("_acme-challenge.other")
    await served.update(key=mint_secret())
    await served.update(txt="short")
    assert {"unavailable": 1, "not-covered": 1, "unauthenticated": 1, "bad_txt": 1} == _outcomes() - before


def _outcomes() -> Counter[str]:
    """How many updates came to what."""
    samples = (sample for family in metrics.REGISTRY.collect() for sample in family.samples)
    return Counter(
        {
            sample.labels["outcome"]: int(sample.value)
            for sample in samples
            if sample.name == "responder_requests_total" and sample.labels["route"] == "/update"
        }
    )


class TestFewRequests:
    """An address may ask twice a minute."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings.model_validate({"limits": {"per_address": "2/minute"}})

    async def test_too_many_from_one_address(self, served: Served) -> None:
        """The next is refused in acme-dns's words, and told when to come back."""
        assert [200] * 2 == [(await served.update()).status for _ in range(2)]
        reply = await served.update()
        assert (429, b'{"error": "too_many_requests"}') == (reply.status, reply.body)
        assert "Retry-After: " in reply.head


# Imported accounts


async def _import(served: Served, password: str, *, expires_at: datetime | None = None) -> Token:
    name = Name.parse(f"{uuid4()}.{APEX}")
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
    new = NewToken(
        digest=None, bcrypt=hashed, grants=(Grant(hostname=name, challenge_name=name, apex=APEX),),
        created_at=served.token.created_at, expires_at=expires_at,
    )  # fmt: skip
    return await served.running.store.mint(new)


async def test_an_imported_password_is_hashed_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bcrypt hash is compared at the first use; after that our digest serves, on every route."""
    password = "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789_-ab"
    account = await _import(served, password)
    label = str(account.grants[0].challenge_name).partition(".")[0]
    wrong = await served.update(label, user=account.id, key=password[::-1])
    assert (401, b'{"error": "forbidden"}') == (wrong.status, wrong.body)
    assert 401 == (await served.update(label, user=served.token.id, key=password)).status
    replies = await asyncio.gather(*(served.update(label, user=account.id, key=password) for _ in range(5)))
    assert [200] * 5 == [reply.status for reply in replies]
    monkeypatch.delattr("bcrypt.checkpw")
    assert await served.running.store.find_bcrypt(account.id) is None
    assert 200 == (await served.update(label, user=account.id, key=password)).status
    bearer = await served.send(f"GET /v1/token HTTP/1.1\nHost: a\nAuthorization: Bearer {password}")
    assert (200, str(account.id)) == (bearer.status, json.loads(bearer.body)["id"])
    assert json.loads(bearer.body)["hostnames"][0]["cname"] is None


async def test_an_imported_password_that_was_just_settled(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is good although another request, or another node, replaced its hash after it was looked up."""
    account = await _import(served, "password")
    label = str(account.grants[0].challenge_name).partition(".")[0]
    find_bcrypt = served.running.store.find_bcrypt

    async def late(token_id: UUID) -> bytes | None:
        hashed = await find_bcrypt(token_id)
        assert hashed is not None
        async with served.running.other_store() as other:
            await other.settle_bcrypt(token_id, hashed, digest("password"))
        return await find_bcrypt(token_id)

    monkeypatch.setattr(served.running.store, "find_bcrypt", late)
    assert 200 == (await served.update(label, user=account.id, key="password")).status


@pytest.mark.parametrize("is_settled", [False, True], ids=["never shown", "shown before"])
async def test_an_imported_account_that_is_revoked(served: Served, *, is_settled: bool) -> None:
    """It is good for nothing any more, on any route, whether its hash was replaced by then or is so now."""
    account = await _import(served, "password")
    name = account.grants[0].challenge_name
    label = str(name).partition(".")[0]
    if is_settled:
        assert 200 == (await served.update(label, user=account.id, key="password")).status
    async with served.running.other_store() as store:
        await store.revoke(account.id, at=datetime.now(UTC))
    await until(lambda: served.running.shown(name) is None)

    basic = base64.b64encode(f"{account.id}:password".encode()).decode()
    body = json.dumps({"fqdn": str(name), "value": VALUE})
    for _ in range(2):
        reply = await served.update(label, user=account.id, key="password")
        assert (401, b'{"error": "forbidden"}') == (reply.status, reply.body)
        for path in ("/present", "/cleanup"):
            reply = await served.send(f"POST {path} HTTP/1.1\nHost: a\nAuthorization: Basic {basic}", body)
            assert (401, "urn:responder:problem:unauthenticated") == (reply.status, json.loads(reply.body)["type"])
    assert served.running.shown(name) is None
    assert not await served.running.store.values(account.id)


async def test_an_imported_account_that_has_expired_or_been_rotated(served: Served) -> None:
    """Its old password ends when the token does, or the grace is over, though it was never shown before."""
    before = datetime.now(UTC) - timedelta(seconds=2)
    ended, rotated = await _import(served, "first", expires_at=before), await _import(served, "second")
    await served.running.store.rotate(rotated.id, digest(mint_secret()), at=before, grace=timedelta(0))
    for account, password in ((ended, "first"), (rotated, "second")):
        label = str(account.grants[0].challenge_name).partition(".")[0]
        assert 401 == (await served.update(label, user=account.id, key=password)).status


async def test_wrong_passwords_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come together, no more are hashed than one address may get wrong, and others need not wait."""
    account = await _import(served, "right")
    hashed: list[bytes] = []

    def check(password: bytes, _: bytes) -> bool:
        hashed.append(password)
        return False

    monkeypatch.setattr("bcrypt.checkpw", check)
    replies = await asyncio.gather(*(served.update(user=account.id, key=f"wrong{number}") for number in range(100)))

    assert {401, 429} == {reply.status for reply in replies}
    assert 60 == len(hashed)


class TestFewFailures:
    """An address may show three unknown keys an hour."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings.model_validate({"limits": {"failures": "3/hour"}})

    async def test_failures_of_others_at_one_address(self, served: Served) -> None:
        """Behind an address with too many unknown keys, an account that was imported is taken over all the same."""
        account = await _import(served, "password")
        label = str(account.grants[0].challenge_name).partition(".")[0]
        for _ in range(3):
            assert 401 == (await served.update(user=uuid4(), key="unknown")).status
        assert 429 == (await served.update(user=uuid4(), key="unknown")).status

        assert 200 == (await served.update(label, user=account.id, key="password")).status


async def test_unknown_keys_wait_for_no_hash(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a password is compared, which takes long, a key of no account is refused."""
    account = await _import(served, "right")
    compared = threading.Event()

    def check(*_: bytes) -> bool:
        return not compared.wait(PATIENCE)

    monkeypatch.setattr("bcrypt.checkpw", check)
    waiting = asyncio.create_task(served.update(user=account.id, key="wrong"))
    try:
        assert 401 == (await served.update(user=uuid4(), key="unknown")).status
        assert not waiting.done()
    finally:
        compared.set()
    assert 401 == (await waiting).status


@pytest.mark.parametrize("key", ["x" * 73, "short\0", "short\0short", "short\0shor"])
async def test_a_key_that_bcrypt_cannot_take(served: Served, key: str) -> None:
    """A key that is longer than any password of acme-dns, or has a zero octet, is refused like any other."""
    account = await _import(served, "short")
    basic = base64.b64encode(f"{account.id}:{key}".encode()).decode()

    reply = await served.send(f"GET /v1/token HTTP/1.1\nHost: a\nAuthorization: Basic {basic}")

    assert 401 == reply.status
    assert await served.running.store.find_bcrypt(account.id) is not None


# Registration and health


async def test_register_as_clients_send_it(served: Served, subtests: pytest.Subtests) -> None:
    """Each gets exactly 201 and one line of strings, and the account works at once."""
    posts = {
        "acme.sh by curl": ("User-Agent: acme.sh/3.1.0\nContent-Type: application/x-www-form-urlencoded", ""),
        "goacmedns 0.2.0 without networks": ("Content-Type: application/json", "null\n"),
        "goacmedns 0.1.1": ("Content-Type: application/json", '{"AllowFrom":["127.0.0.0/8"]}'),
        "Posh-ACME": ("Authorization: Basic Og==\nContent-Type: application/json", "{}"),
        "joohoi's own hook": ("", '{"allowfrom": ["127.0.0.1/8", "[::1]/128"]}'),
    }
    for client, (head, body) in posts.items():
        with subtests.test(client):
            reply = await served.register(body, head)
            account = json.loads(reply.body)
            assert 201 == reply.status
            assert reply.body.startswith(b'{"username": "')
            assert b"\n" not in reply.body
            assert b"\\" not in reply.body
            assert ["username", "password", "fulldomain", "subdomain", "allowfrom"] == list(account)
            assert f"{UUID(account['subdomain'])}.{APEX}" == account["fulldomain"]
            name = Name.parse(account["fulldomain"])
            assert set() == served.running.shown(name)
            assert (
                200
                == (await served.update(account["subdomain"], user=account["username"], key=account["password"])).status
            )
            assert {VALUE} == served.running.shown(name)


async def test_registration_keeps_the_networks(served: Served) -> None:
    """They are echoed as sent, bits beyond the prefix included, and they hold."""
    account = json.loads((await served.register('{"allowfrom": ["192.0.2.77/24", "[2001:db8::1]/128"]}')).body)
    assert ["192.0.2.77/24", "[2001:db8::1]/128"] == account["allowfrom"]
    token = await served.running.store.token(UUID(account["username"]))
    assert (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128")) == token.allow_from
    assert 401 == (await served.update(account["subdomain"], user=account["username"], key=account["password"])).status


async def test_registrations_that_are_refused(served: Served, subtests: pytest.Subtests) -> None:
    """
    An address without a prefix is no network, and what is no JSON is none. Nor is a network in a zone of IPv6, which
    could be any text: one that commands a terminal, or one that no database takes.
    """
    for body, error in {
        '{"allowfrom": ["192.0.2.1"]}': "invalid_allowfrom_cidr",
        '{"allowfrom": ["x/24"]}': "invalid_allowfrom_cidr",
        '{"allowfrom": "192.0.2.0/24"}': "invalid_allowfrom_cidr",
        '{"allowfrom": [5]}': "invalid_allowfrom_cidr",
        '{"allowfrom": ["fe80::%eth0/64"]}': "invalid_allowfrom_cidr",
        '{"allowfrom": ["fe80::%\\u001b[31m/64"]}': "invalid_allowfrom_cidr",
        '{"allowfrom": ["fe80::%\\ud800/64"]}': "invalid_allowfrom_cidr",
        "allowfrom=": "malformed_json_payload",
    }.items():
        with subtests.test(body):
            reply = await served.register(body)
            assert (400, json.dumps({"error": error}).encode()) == (reply.status, reply.body)
    assert [served.token.id] == [token.id for token in await served.running.store.tokens()]


async def test_too_many_registrations(served: Served) -> None:
    """One address gets ten an hour, and is told when to come back."""
    statuses = [(await served.register()).status for _ in range(10)]
    assert [201] * 10 == statuses
    reply = await served.register()
    assert (429, b'{"error": "too_many_requests"}') == (reply.status, reply.body)
    assert "Retry-After: " in reply.head
    assert 11 == len(await served.running.store.tokens())


class TestRegistrationInAll:
    """Registration, with few accounts a day for everybody together."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        return ApiSettings(registration=RegistrationSettings(enabled=True, limit_in_all="2/day"))

    async def test_too_many(self, served: Served) -> None:
        """The next is refused in acme-dns's words, told when to come back, and leaves nothing in the database."""
        assert [201] * 2 == [(await served.register()).status for _ in range(2)]
        before = rows(served.running.directory)
        reply = await served.register()
        assert (429, b'{"error": "too_many_requests"}') == (reply.status, reply.body)
        assert "Retry-After: " in reply.head
        assert before == rows(served.running.directory)


class TestClosed:
    """Registration as it is by default, and limited to networks."""

    @pytest.fixture(params=["closed", "elsewhere"])
    def settings(self, request: pytest.FixtureRequest) -> ApiSettings:
        if request.param == "closed":
            return ApiSettings()
        return ApiSettings(registration=RegistrationSettings(enabled=True, allow_from=(ip_network("192.0.2.0/24"),)))

    async def test_registration(self, served: Served, request: pytest.FixtureRequest) -> None:
        """The route is not there, or not for this address."""
        expected = 404 if "closed" in request.node.name else 403
        reply = await served.register()
        assert (expected, ["error"]) == (reply.status, list(json.loads(reply.body)))
        assert [served.token.id] == [token.id for token in await served.running.store.tokens()]


NO_DIGEST = [
    "v=spf1 include:mail.example.net -all",
    "google-site-verification=" + VALUE,
    VALUE[1:],
    VALUE + "A",
    "+" * 43,
]


@pytest.mark.parametrize("value", NO_DIGEST)
async def test_what_an_account_may_publish(served: Served, value: str) -> None:
    """On no route does a registered account publish anything but answers to challenges; a refusal is on record."""
    account = json.loads((await served.register()).body)
    basic = base64.b64encode(f"{account['username']}:{account['password']}".encode()).decode()
    head = f"POST /{{}} HTTP/1.1\nHost: a\nAuthorization: Basic {basic}"

    refused = await served.send(head.format("present"), json.dumps({"fqdn": account["fulldomain"], "value": value}))
    good = await served.send(head.format("present"), json.dumps({"fqdn": account["fulldomain"], "value": VALUE}))
    cleaned = await served.send(head.format("cleanup"), json.dumps({"fqdn": account["fulldomain"], "value": value}))

    problem = json.loads(refused.body)
    assert (403, "urn:responder:problem:not-a-challenge") == (refused.status, problem["type"])
    assert (
        f"{account['fulldomain']} accepts only dns-01 challenge values: 43 characters of base64url" in problem["detail"]
    )
    assert [200, 200] == [good.status, cleaned.status]
    assert {VALUE} == served.running.shown(Name.parse(account["fulldomain"]))
    await until_recorded(served, "accepts only dns-01 challenge values")


async def test_what_an_imported_account_may_publish(served: Served) -> None:
    """It is the same for an account of an acme-dns server, which takes nothing else either."""
    account = await _import(served, "password")
    basic = base64.b64encode(f"{account.id}:password".encode()).decode()
    body = json.dumps({"fqdn": str(account.grants[0].challenge_name), "value": NO_DIGEST[0]})

    reply = await served.send(f"POST /present HTTP/1.1\nHost: a\nAuthorization: Basic {basic}", body)

    assert (403, "urn:responder:problem:not-a-challenge") == (reply.status, json.loads(reply.body)["type"])


async def test_health(served: Served) -> None:
    """Exactly 200, with nothing in it."""
    for path in ("/health", "//health"):
        reply = await served.send(f"GET {path} HTTP/1.1\nHost: a")
        assert (200, b"") == (reply.status, reply.body)


def test_the_settings_have_a_rate() -> None:
    """What is no rate is a fault that shows one."""
    with pytest.raises(ValueError, match='is not a rate: write one like "100/minute"'):
        RegistrationSettings(limit="often")
    assert "5/hour" == RegistrationSettings(limit="5/hour").limit


async def test_compressed_body(served: Served) -> None:
    """A body that claims to be compressed is refused in its words."""
    for route, secret in (("update", f"X-Api-User: {served.token.id}\nX-Api-Key: {served.secret}\n"), ("register", "")):
        reply = await served.send(f"POST /{route} HTTP/1.1\nHost: a\n{secret}Content-Encoding: gzip", "{}")
        assert (415, {"error": "unsupported_media_type"}) == (reply.status, json.loads(reply.body))
