"""
One property over all routes, HTTP and DNS: whatever is sent with a token, no name changes that its grants do not cover.

The requests are made of pieces that could be mistaken for each other: names of other tenants in every spelling, ids and
secrets of other tokens, members in any case, rubbish. What counts is the database afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder.api import build_api
from responder.config import ApiSettings
from responder.limits import Limits
from responder.tokens.secret import Secret
from responder.tokens.token import Token
from tests.api.test_api import MAX_LIFETIME, listening
from tests.support.service import APEX, SERVING, Control, control, new_database
from tests.support.updates import ANY, ANY_TYPE, IN, NONE, SOA, TXT, A, Desk, add, key_of, message, rcode, record, text
from tests.support.updates import name as wire_name

MINE, ALSO_MINE = "some.example.com", "www.some.example.com"
YOURS = ["other.example.com", "example.com", "deep.some.example.com", "some.example.org", "api.acme.example.com"]
VALUE = "LHDhK3oGRvkiefQnx7OOczTY5Tic_xZ6HcMOc_gmtoM"

_HOSTS = [MINE, ALSO_MINE, *YOURS]
_BARE = st.sampled_from(
    [
        *_HOSTS,
        *(f"*.{host}" for host in _HOSTS),
        *(f"_acme-challenge.{host}" for host in _HOSTS),
        *(f"_acme-challenge.{host.removesuffix('.example.com')}.acme.example.com" for host in _HOSTS),
        *(f"_acme-challenge.{host.removesuffix('.example.com')}" for host in _HOSTS),
        "_acme-challenge.some.example.org.acme.example.com",
        "_acme-challenge.acme.example.com",
        "acme.example.com",
        "_acme-challenge",
        "",
        ".",
    ]
)
_SPELLINGS = st.sampled_from(
    [
        lambda name: name,
        str.upper,
        lambda name: f"{name}.",
        lambda name: f"{name}..",
        lambda name: name.replace("o", "\\111"),
        lambda name: name.replace(".", "\\."),
        lambda name: name.replace(".", "。"),
        lambda name: f" {name}\n",
        lambda name: f"{name}\0",
        lambda name: f"{name},_acme-challenge.other.acme.example.com",
    ]
)
_NAMES = st.builds(lambda spell, name: spell(name), _SPELLINGS, _BARE) | st.text(max_size=20)
_VALUES = st.sampled_from([VALUE, VALUE[::-1], "short", ""]) | st.text(max_size=10)
_ANYTHING = st.none() | st.integers() | st.lists(_NAMES, max_size=2) | st.dictionaries(_NAMES, _NAMES, max_size=2)
_MEMBERS = [
    "fqdn",
    "value",
    "domain",
    "token",
    "keyAuth",
    "lifetime",
    "acme_token",
    "subdomain",
    "txt",
    "SubDomain",
    "Txt",
]
_BODIES = (
    st.fixed_dictionaries({"fqdn": _NAMES, "value": _VALUES})
    | st.fixed_dictionaries({"domain": _NAMES, "token": st.just("t"), "keyAuth": st.just("t.k")})
    | st.fixed_dictionaries({"subdomain": _NAMES, "txt": st.just(VALUE)})
    | st.dictionaries(st.sampled_from(_MEMBERS), _NAMES | _VALUES | _ANYTHING, max_size=5)
    | _ANYTHING
)
_PATHS = st.sampled_from(
    ["/present", "/cleanup", "/update", "//update", "/present?fqdn=_acme-challenge.other.acme.example.com"]
)


@dataclass(frozen=True)
class Tenants:
    """A running API with two tenants: one whose token is known, one whose values must stay."""

    runner: asyncio.Runner
    running: Control
    session: aiohttp.ClientSession
    url: str
    secret: Secret
    token: Token
    victim: Token
    desk: Desk

    def update(self, packet: bytes) -> str:
        """Hand in a DNS update; returns the rcode that came back."""
        return rcode(self.runner.run(self.desk.ask(packet)))

    def send(self, path: str, headers: dict[str, str], body: Any) -> None:
        async def post() -> None:
            data = json.dumps(body).encode("utf-8", "surrogatepass")
            async with self.session.post(self.url + path, data=data, headers=headers) as response:
                assert response.status < 500
                await response.read()

        self.runner.run(post())

    def yours(self) -> list[tuple[str, str]]:
        """Every value that is not at a name of the token, as the database has it."""
        values = self.runner.run(self.running.store.values())
        return [(str(v.hostnames[0]), v.value) for v in values if str(v.hostnames[0]) not in (MINE, ALSO_MINE)]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """Both tenants, each with a value in place."""
    directory = tmp_path_factory.mktemp("scope")
    url = new_database(directory)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner.run(_start(runner, stack, directory, url))
        runner.run(stack.aclose())


async def _start(runner: asyncio.Runner, stack: AsyncExitStack, directory: Path, url: str) -> Tenants:
    running = await stack.enter_async_context(control(directory, url))
    secret, token = await running.mint(MINE, ALSO_MINE)
    _, victim = await running.mint(*YOURS)
    for grant in victim.grants:
        await running.challenges.present(victim, grant, VALUE, client="192.0.2.1")
    app = build_api(
        running.store,
        running.challenges,
        Limits(ApiSettings()),
        ApiSettings(),
        apex=APEX,
        serving=SERVING,
        max_lifetime=MAX_LIFETIME,
    )
    port = await stack.enter_async_context(listening(app))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return Tenants(runner, running, session, f"http://127.0.0.1:{port}", secret, token, victim, Desk(running))


def _credentials(tenants: Tenants) -> list[dict[str, str]]:
    """The token in every way that it can be sent, also as if it were the other tenant's."""

    def basic(user: object) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{tenants.secret}'.encode()).decode()}"}

    return [
        {"Authorization": f"Bearer {tenants.secret}"},
        basic(tenants.token.id),
        basic(tenants.victim.id),
        {"X-Api-User": str(tenants.token.id), "X-Api-Key": tenants.secret},
        {"X-Api-User": str(tenants.victim.id), "X-Api-Key": tenants.secret},
        {"X-Api-Key": tenants.secret, "X-Forwarded-For": "192.0.2.1"},
        {"X-Api-User": str(tenants.victim.id), **basic(tenants.token.id)},
    ]


@settings(max_examples=300)
@given(st.integers(0, 6), _PATHS, _BODIES)
def test_no_request_touches_what_its_token_does_not_cover(tenants: Tenants, way: int, path: str, body: Any) -> None:
    """The other tenant's values are those of the beginning, whatever was sent."""
    tenants.send(path, _credentials(tenants)[way], body)
    assert sorted((host, VALUE) for host in YOURS) == sorted(tenants.yours())


_OWNERS = st.sampled_from(
    [
        *(f"_acme-challenge.{host}" for host in _HOSTS),
        *(f"_acme-challenge.{host.removesuffix('.example.com')}.acme.example.com" for host in _HOSTS),
        "_ACME-CHALLENGE.SOME.acme.example.com",
        "x._acme-challenge.some.acme.example.com",
        "*.acme.example.com",
        "acme.example.com",
    ]
)
_RECORDS = st.builds(
    record,
    _OWNERS,
    st.sampled_from([TXT, TXT, TXT, ANY_TYPE, A, SOA, 250]),
    st.sampled_from([IN, IN, NONE, ANY, 3]),
    st.sampled_from([0, 0, 60]),
    st.sampled_from([b"", text(VALUE), text(VALUE), text("a", "b"), bytes(4)]),
)
_POINTERS = st.sampled_from(
    [b"\xc0\x0c", b"\x0f_acme-challenge\xc0\x0c", b"\x0f_acme-challenge\x05other\xc0\x0c", b"\xc0\x22"]
)
_COMPRESSED = st.builds(
    lambda pointer, tail: pointer + tail[len(wire_name(MINE)) :], _POINTERS, st.just(add(MINE, VALUE))
)
_CHANGES = st.lists(_RECORDS | _COMPRESSED, max_size=4)


@settings(max_examples=500)
@given(_CHANGES, st.lists(_RECORDS, max_size=2), st.integers(0, 0xFFFF), st.data())
def test_no_update_touches_what_its_token_does_not_cover(
    tenants: Tenants, changes: list[bytes], prerequisites: list[bytes], ident: int, data: st.DataObject
) -> None:
    """The same for DNS updates with the token's key, or with what was made of one after it was signed."""
    unsigned = message(*changes, prerequisites=prerequisites, ident=ident)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(12, len(unsigned) - 1))
        unsigned = unsigned[:at] + data.draw(st.binary(max_size=20)) + unsigned[at + 1 :]
    signed = key_of(tenants.token).sign(unsigned, tenants.desk.now)
    if data.draw(st.booleans()):
        signed = signed.replace(str(tenants.token.id).encode(), str(tenants.victim.id).encode())

    tenants.update(signed)

    assert sorted((host, VALUE) for host in YOURS) == sorted(tenants.yours())


def test_the_token_works(tenants: Tenants) -> None:
    """The property says something: the same requests change what the token does cover."""
    tenants.send("/update", _credentials(tenants)[3], {"subdomain": "_acme-challenge.some", "txt": VALUE})
    tenants.send("/present", _credentials(tenants)[0], {"fqdn": f"_acme-challenge.{ALSO_MINE}.", "value": "v"})
    added = message(add("_acme-challenge.some.acme.example.com", "u"), ident=0)
    assert "NOERROR" == tenants.update(key_of(tenants.token).sign(added, tenants.desk.now - 1))
    mine = {(str(v.hostnames[0]), v.value) for v in tenants.runner.run(tenants.running.store.values(tenants.token.id))}
    assert {(MINE, VALUE), (ALSO_MINE, "v"), (MINE, "u")} <= mine
