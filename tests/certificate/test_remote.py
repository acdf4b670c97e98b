"""Challenge values by way of the API, as `responder issue` presents them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from aiohttp import web

from responder.api import build_api, build_runner
from responder.api.tls import ServerTls
from responder.certificate import remote
from responder.certificate.authority import Challenge
from responder.certificate.remote import solving
from responder.config import ApiSettings
from responder.errors import Refused, ResponderError, Unavailable
from responder.limits import Limits
from responder.tokens.secret import Secret
from tests.support.keypairs import key_pair
from tests.support.service import APEX, SERVING, Control, running, url

__all__ = ["running", "url"]

HOST = "some.example.com"
CHALLENGE = Challenge(HOST, "v" * 43, "token", cast(Any, None))
NOBODY = Secret("rsp_nobody")


@asynccontextmanager
async def listening(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = build_runner(app, name="api", drain=0.1)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await runner.listen(listener, tls)
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await runner.cleanup()


def api(running: Control) -> web.Application:
    return build_api(
        running.store,
        running.challenges,
        Limits(ApiSettings()),
        ApiSettings(),
        apex=APEX,
        serving=SERVING,
        max_lifetime=timedelta(days=1),
    )


async def fault(endpoint: str, secret: Secret = NOBODY, **how: Any) -> ResponderError:
    """What presenting comes to."""
    async with solving(endpoint, secret, lifetime=60, **how) as solver:
        with pytest.raises(ResponderError) as caught:
            await solver.present(CHALLENGE)
    return caught.value


async def test_present_and_cleanup(running: Control) -> None:
    """A value is presented for so long, is told where, and is cleaned up; the API is checked with the token alone."""
    secret, _ = await running.mint(HOST)
    async with listening(api(running)) as endpoint, solving(f"{endpoint}/", secret, lifetime=60) as solver:
        await solver.check()
        assert "_acme-challenge.some.acme.example.com" == await solver.present(CHALLENGE)
        (value,) = await running.store.values()
        assert value.expires_at - running.clock.now <= timedelta(seconds=61)
        assert {CHALLENGE.value} == running.values(HOST)
        await solver.cleanup(CHALLENGE)
        assert set() == running.values(HOST)


async def test_refusals(running: Control) -> None:
    """What the API refuses is said in its words."""
    secret, _ = await running.mint("other.example.com")
    async with listening(api(running)) as endpoint:
        unknown, uncovered = await fault(endpoint), await fault(endpoint, secret)

    assert isinstance(unknown, Refused)
    assert str(unknown).startswith(f"the API at {endpoint} reports: this token is unknown")
    assert "reports: this token does not cover _acme-challenge.some.example.com: it covers other" in str(uncovered)


async def test_api_that_cannot_do_it_now(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that cannot do it now is asked again; if it never can, that is said."""
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    secret, _ = await running.mint(HOST)
    async with listening(api(running)) as endpoint:
        with running.store.away():
            away = await fault(endpoint, secret)

    assert isinstance(away, Unavailable)
    assert f"the API at {endpoint} reports: the service cannot do this now: try again later, which is safe" == str(away)

    answers = [503, 502, 200]

    async def recover(_: web.Request) -> web.Response:
        status = answers.pop(0)
        return web.json_response({"challenge_name": "_acme-challenge.x."} if status == 200 else [], status=status)

    app = web.Application()
    app.router.add_post("/present", recover)
    async with listening(app) as endpoint, solving(endpoint, NOBODY, lifetime=60) as solver:
        assert "_acme-challenge.x" == await solver.present(CHALLENGE)


async def test_what_is_no_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody, somebody else, or somebody who never answers: one line each."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(status=404, text="<html>" * 20_000)

    app = web.Application()
    app.router.add_post("/present", page)
    async with listening(app) as endpoint:
        other = await fault(endpoint)
        garbled = await fault(endpoint.replace("http:", "https:"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(remote, "REQUEST_TIMEOUT", 0.05)
        late = await fault(f"http://127.0.0.1:{silent.getsockname()[1]}")
    down = await fault(endpoint)

    assert f"the API at {endpoint} reports: status 404" == str(other)
    assert "cannot be used: it does not speak TLS there: check --url" in str(garbled)
    assert "cannot be used: it does not respond in time" in str(late)
    assert f"the API at {endpoint} cannot be used: connection refused: check that the service runs, and --url" == str(
        down
    )


async def test_tls(running: Control) -> None:
    """A certificate that nobody vouches for is refused, unless the API is on this very machine."""
    secret, _ = await running.mint(HOST)
    tls = ServerTls(key_pair("api.acme.example.com"))
    async with listening(api(running), tls.context) as endpoint:
        distrusted = await fault(endpoint, secret)
        async with solving(endpoint, secret, lifetime=60, trust_anybody=True) as solver:
            await solver.check()

    assert "its certificate is not trusted here (self-signed certificate): use a certificate" in str(distrusted)
