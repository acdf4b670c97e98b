"""DNS updates while the control process dies: each is answered, signed, by the next one, and none is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.tsig
import dns.update
import pytest

from responder.feed.relay import DEADLINE
from tests.support.nameservers import new_source
from tests.support.processes import PATIENCE

from .dns_client import values
from .programs import wait_until
from .service import ZONE, Responder, Token
from .updates import key_of

pytestmark = pytest.mark.e2e

CLIENTS = 3
"""Clients that send one update after the other, each with a token of its own."""

BEFORE, AFTER = 10, 10
"""Updates of each client before the control process is killed, and after another one has taken its place."""


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_control_is_killed(fresh_service: Responder, transport: str) -> None:
    """No client waits in vain or is refused, though none asks twice, and in the end stands what it sent last."""
    service = fresh_service
    tokens = [service.mint(f"host{number}.example.com") for number in range(CLIENTS)]
    for token in tokens:
        wait_until(lambda token=token: not values(service.dns, token.challenge_name), "the name is there")  # type: ignore[misc]
    first = service.child("control")
    done = [0] * CLIENTS
    back = asyncio.Event()

    async def send(number: int) -> set[str]:
        expected = set[str]()
        more = AFTER
        while more:
            done[number] += 1
            more -= back.is_set()
            value = f"{done[number] % 5:043}"
            step = "delete" if value in expected else "add"
            reply = await _update(service, tokens[number], step, value, transport)
            assert (True, dns.rcode.NOERROR) == (reply.had_tsig, reply.rcode())
            expected ^= {value}
        return expected

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(send(number)) for number in range(CLIENTS)]
        await _until(lambda: min(done) >= BEFORE)
        first.kill()
        await asyncio.to_thread(service.replacement, first, "control")
        back.set()

    assert [client.result() for client in clients] == [values(service.dns, token.challenge_name) for token in tokens]


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_no_database(fresh_service: Responder, transport: str) -> None:
    """A control process that waits for its database signs its SERVFAIL, and so a client can read it."""
    service = fresh_service
    token = service.mint("some.example.com")
    wait_until(lambda: not values(service.dns, token.challenge_name), "the name is there")
    file, away = service.directory / "responder.db", service.directory / "away.db"
    first = service.child("control")
    file.rename(away)
    first.kill()
    await asyncio.to_thread(service.replacement, first, "control")

    refused = await _update(service, token, "add", "a" * 43, transport)
    away.rename(file)
    await asyncio.to_thread(wait_until, service.ready, "the service is ready again")
    taken = await _update(service, token, "add", "b" * 43, transport)

    assert (True, dns.rcode.SERVFAIL) == (refused.had_tsig, refused.rcode())
    assert (True, dns.rcode.NOERROR) == (taken.had_tsig, taken.rcode())
    assert {"b" * 43} == values(service.dns, token.challenge_name)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _update(service: Responder, token: Token, step: str, value: str, transport: str) -> dns.message.Message:
    """
    The reply to an update that is sent once. On a machine so busy that the control process is away for longer than
    anybody waits, the reply is not signed, and it is sent again.
    """
    began = time.monotonic()
    try:
        return await _update_once(service, token, step, value, transport)
    except dns.exception.FormError:
        assert time.monotonic() - began >= DEADLINE, "a reply without a signature, while there was time for one"
        return await _update(service, token, step, value, transport)


async def _update_once(service: Responder, token: Token, step: str, value: str, transport: str) -> dns.message.Message:
    key = key_of(service, token)
    message = dns.update.UpdateMessage(ZONE, keyring=dns.tsig.Key(key.name, key.secret))
    if step == "add":
        message.add(f"{token.challenge_name}.", 60, "TXT", value)
    else:
        message.delete(f"{token.challenge_name}.", "TXT", value)
    ask = dns.asyncquery.udp if transport == "UDP" else dns.asyncquery.tcp
    return await ask(message, "127.0.0.1", timeout=PATIENCE, port=service.dns, source=new_source())
