"""Which address a request comes from: the headers of proxies, in the forms that proxies write them."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from responder.addresses import UNKNOWN
from responder.api.clients import trust_proxies

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


async def client(peer: str, headers: list[str], *, header: str = "X-Forwarded-For") -> tuple[str, list[Any]]:
    """The address that a handler sees for a connection from *peer* with these *headers*, and what was logged."""

    async def seen(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.remote)

    received = CIMultiDict((header, value) for value in headers)
    request = make_mocked_request("GET", "/", headers=received).clone(remote=peer)
    with structlog.testing.capture_logs() as logs:
        response = await trust_proxies(PROXIES, header)(request, seen)
    assert isinstance(response, web.Response)
    return response.text or "", logs


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("192.0.2.9", ["203.0.113.5"], "192.0.2.9"),
        ("192.0.2.9", ["nonsense"], "192.0.2.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.7, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["nonsense, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.7, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.7", "203.0.113.5,10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::ffff:10.0.0.1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, ,"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5:49152"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5:49152, 10.0.0.2:80"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:db8::5]:49152"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]"], "2001:db8::5"),
        ("10.0.0.1", ["[::ffff:203.0.113.5]:49152"], "203.0.113.5"),
        ("10.0.0.1", ['"203.0.113.5"'], "203.0.113.5"),
        ("10.0.0.1", ['"[2001:db8::5]:49152", "[fd00::1]:443"'], "2001:db8::5"),
        ("10.0.0.1", ["for=203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ['For="[2001:db8::5]:4711";proto=https;by=10.0.0.1'], "2001:db8::5"),
        ("10.0.0.1", ["for=198.51.100.7, proto=http; for=203.0.113.5 ;by=10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ['for="203.0.113.5:_port"'], "203.0.113.5"),
    ],
)
async def test_forwarded_addresses(peer: str, headers: list[str], expected: str) -> None:
    """Of the addresses in the header, the last one counts that no trusted proxy has, and only from such a proxy."""
    assert (expected, []) == await client(peer, headers)


@pytest.mark.parametrize(
    "item",
    [
        "nonsense",
        "203.0.113",
        "203.0.113.5:port",
        "203.0.113.5:123456",
        "203.0.113.5:80:81",
        "[203.0.113.5]:80x",
        "[2001:db8::5",
        "2001:db8::5]:80",
        '"203.0.113.5',
        "unknown",
        "for=unknown",
        "for=_hidden",
        "for=",
        "by=203.0.113.5;proto=https",
        "203.0.113.5 203.0.113.6",
        "1" * 5000,
    ],
)
async def test_unreadable_item(item: str) -> None:
    """What no address can be read from is no address: the proxy does not become the client, and a line is logged."""
    for headers in ([item], [f"203.0.113.5, {item}"], ["203.0.113.5", f"{item}, 10.0.0.2"]):
        seen, logs = await client("10.0.0.1", headers)

        assert UNKNOWN == seen
        (line,) = logs
        assert ("warning", "X-Forwarded-For", item[:64]) == (line["log_level"], line["header"], line["item"])
        assert line["proxy"] == ("10.0.0.2" if "10.0.0.2" in headers[-1] else "10.0.0.1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['for=203.0.113.9;host="x,for=192.0.2.1;a=";proto=https'], "203.0.113.9"),
        (['proto=http;host="x;for=192.0.2.1;y=";for="203.0.113.9:4711"'], "203.0.113.9"),
        (['for=192.0.2.1, for=203.0.113.9;host="x,for=192.0.2.1"'], "203.0.113.9"),
        ([r'for=203.0.113.9;host="x\",for=192.0.2.1;a=\""'], "203.0.113.9"),
        ([r'host="x\";for=192.0.2.1;a=\\";for=203.0.113.9'], "203.0.113.9"),
        ([r'for="\[2001:db8::5\]:4711"'], "2001:db8::5"),
        (['for=203.0.113.9;host="x,for=192.0.2.1;a=", for=10.0.0.2;host=","'], "203.0.113.9"),
        (['for="', "for=203.0.113.9"], "203.0.113.9"),
        (["for=203.0.113.9;;proto=https;"], "203.0.113.9"),
    ],
)
async def test_quoted_strings(headers: list[str], expected: str) -> None:
    """A separator in a quoted string separates nothing: a client that chooses its Host does not choose its address."""
    assert (expected, []) == await client("10.0.0.1", headers, header="Forwarded")


@pytest.mark.parametrize(
    "item",
    [
        'for="203.0.113.9',
        'for=203.0.113.9;host="x, for=192.0.2.1',
        r'for=203.0.113.9;host="x\", for=192.0.2.1',
        '"203.0.113.9, 203.0.113.9',
        '", for=203.0.113.9',
        '"203.0.113.9\\"',
        'for="203.0.113.9"x',
        'for=203.0.113.9"x"',
        r'", for=203.0.113.9;host="x,for=192.0.2.1;a=\""',
        "for=203.0.113.9;for=192.0.2.1",
        "for=203.0.113.9;For=203.0.113.9",
        "for=203.0.113.9;proto",
    ],
)
async def test_malformed_element(item: str) -> None:
    """An element with an unbalanced quote or with two addresses names no client, and neither does a part of it."""
    seen, logs = await client("10.0.0.1", [item], header="Forwarded")

    assert (UNKNOWN, 1) == (seen, len(logs))


async def test_quotes_of_a_client_in_a_list() -> None:
    """X-Forwarded-For has no quoted strings: with a quote, a client does not hide what the proxy adds."""
    assert ("203.0.113.9", []) == await client("10.0.0.1", ['for=", 203.0.113.9'])


async def test_unreadable_items_are_logged_seldom() -> None:
    """A proxy that writes something else does so with every request: a line now and then is enough."""
    middleware = trust_proxies(PROXIES, "X-Forwarded-For")

    async def seen(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.remote)

    with structlog.testing.capture_logs() as logs:
        for number in range(50):
            headers = {"X-Forwarded-For": f"nonsense-{number}"}
            await middleware(make_mocked_request("GET", "/", headers=headers).clone(remote="10.0.0.1"), seen)

    assert 1 == len(logs)


@pytest.mark.parametrize("header", ["Forwarded", "X-Real-IP", "cf-connecting-ip"])
async def test_other_header(header: str) -> None:
    """The header is the one of the configuration, and no other one is read."""
    assert ("203.0.113.5", []) == await client("10.0.0.1", ["203.0.113.5"], header=header)

    async def seen(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.remote)

    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": "203.0.113.5"}).clone(remote="10.0.0.1")
    response = await trust_proxies(PROXIES, header)(request, seen)
    assert isinstance(response, web.Response)
    assert "10.0.0.1" == response.text
