"""Whatever dies, DNS answers, nothing acknowledged is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.client import HTTPException

import pytest

from tests.support.ports import is_free
from tests.support.processes import PATIENCE

from .dns_client import Resolver, values
from .programs import wait_until
from .service import Responder, Token

pytestmark = pytest.mark.e2e

VALUE, OTHER_VALUE = "a" * 43, "b" * 43

PAUSE = 0.003
"""Seconds between two questions of one client."""

VALUES = 15
"""Values presented at one name at most, besides `VALUE`; the service takes sixteen."""

KILLED = 8
"""Nameservers that are killed one after the other."""

KILLED_AFTER = 20
"""Acknowledged values after which the supervisor is killed: the time in which requests keep coming."""


def test_nothing_is_killed(fresh_service: Responder) -> None:
    """The first token of a new installation and its first value are served by the processes that were there before."""
    service = fresh_service
    before = {service.child("control"), service.child("nameserver")}

    token = service.mint("some.example.com")
    _present(service, token, VALUE)

    assert {VALUE} == values(service.dns, token.challenge_name)
    assert before == {service.child("control"), service.child("nameserver")}


async def test_nameserver_is_killed(fresh_service: Responder) -> None:
    """A nameserver process killed in the middle of 2,000 questions is replaced, and none goes unanswered."""
    service = fresh_service
    token = service.mint("some.example.com")
    _present(service, token, VALUE)
    first = service.child("nameserver")

    async with Resolver.of(service.dns) as resolver, asyncio.TaskGroup() as group:
        questions = []
        for number in range(2000):
            questions.append(group.create_task(resolver.texts(token.challenge_name)))
            if number == 500:
                first.kill()
            await asyncio.sleep(PAUSE)

    answers = [question.result() for question in questions]
    assert [answer for answer in answers if answer != {VALUE}] == []
    assert first != await asyncio.to_thread(service.replacement, first, "nameserver")


def test_a_spare_knows_what_was_acknowledged(fresh_service: Responder) -> None:
    """
    However often the nameserver is killed while values come and go, each value is served when its present returns, and
    not any more when its cleanup does.
    """
    service = fresh_service
    token = service.mint("some.example.com")
    _present(service, token, VALUE)
    over, killed = threading.Event(), set[int]()

    def kill_again_and_again() -> None:
        while not over.is_set():
            wait_until(lambda: over.is_set() or service.spare(), "there is a spare")
            if not over.is_set():
                nameserver = service.child("nameserver")
                nameserver.kill()
                killed.add(nameserver.pid)

    with ThreadPoolExecutor(1) as executor:
        killing = executor.submit(kill_again_and_again)
        try:
            while len(killed) < KILLED and not killing.done():
                assert service.present(token, OTHER_VALUE).status == 200
                assert {VALUE, OTHER_VALUE} == values(service.dns, token.challenge_name)
                assert service.cleanup(token, OTHER_VALUE).status == 200
                assert {VALUE} == values(service.dns, token.challenge_name)
        finally:
            over.set()
            killing.result()


async def test_control_is_killed(fresh_service: Responder) -> None:
    """
    When the control process is killed right after it acknowledged a value, DNS goes on without a gap, and a
    new control process knows the value.
    """
    service = fresh_service
    token = service.mint("some.example.com")
    _present(service, token, VALUE)
    first = service.child("control")

    async with _asking_all_the_time(service, token) as asked:
        assert (await asyncio.to_thread(service.present, token, OTHER_VALUE)).status == 200
        first.kill()
        acknowledged = len(asked)
        await asyncio.to_thread(service.replacement, first, "control")
        await asyncio.to_thread(wait_until, service.ready, "the service is ready again")

    answers = [question.result() for question in asked]
    assert [answer for answer in answers if answer is None or VALUE not in answer] == []
    assert [answer for answer in answers[acknowledged:] if answer != {VALUE, OTHER_VALUE}] == []
    assert {VALUE, OTHER_VALUE} == values(service.dns, token.challenge_name)
    assert service.cleanup(token, OTHER_VALUE).status == 200
    assert {VALUE} == values(service.dns, token.challenge_name)


def test_supervisor_is_killed(fresh_service: Responder) -> None:
    """
    When the supervisor is killed in the middle of many requests, nothing is left running, and all that was
    acknowledged is served after a new start.
    """
    service = fresh_service
    tokens = [service.mint(f"host{number}.example.com") for number in range(3)]
    children = service.children()

    acknowledged = _kill_while_presenting(service, tokens)

    wait_until(lambda: not any(child.alive for child in children), "no child is left")
    wait_until(lambda: all(map(is_free, (service.dns, service.api, service.admin))), "the ports are free")
    service.start()
    served = {(token, value) for token in tokens for value in values(service.dns, token.challenge_name)}
    assert set() == acknowledged - served


def test_supervisor_is_terminated(fresh_service: Responder) -> None:
    """SIGTERM ends the service in an orderly way, and nothing is left running."""
    service = fresh_service
    children = service.children()
    assert children

    service.supervisor.terminate()

    assert service.supervisor.wait() == 0
    assert not any(child.alive for child in children)
    assert all(map(is_free, (service.dns, service.api, service.admin)))


def _present(service: Responder, token: Token, value: str) -> None:
    """Present the value, with the moment of patience that a token minted just now may need."""
    wait_until(lambda: service.present(token, value).status == 200, "the value is acknowledged")


@asynccontextmanager
async def _asking_all_the_time(service: Responder, token: Token) -> AsyncIterator[list[asyncio.Task[set[str] | None]]]:
    """Ask for the token's values every few milliseconds while the block runs; gives the questions so far."""
    asked: list[asyncio.Task[set[str] | None]] = []
    over = asyncio.Event()

    async def ask(resolver: Resolver, group: asyncio.TaskGroup) -> None:
        while not over.is_set():
            asked.append(group.create_task(resolver.texts(token.challenge_name)))
            await asyncio.sleep(PAUSE)

    async with Resolver.of(service.dns) as resolver, asyncio.TaskGroup() as group:
        asking = group.create_task(ask(resolver, group))
        try:
            yield asked
        finally:
            over.set()
            await asking


def _kill_while_presenting(service: Responder, tokens: Sequence[Token]) -> set[tuple[Token, str]]:
    """Present value after value, kill the supervisor meanwhile, and give what had been acknowledged."""
    acknowledged: set[tuple[Token, str]] = set()
    enough = threading.Event()

    def present_until_killed() -> None:
        for value in (f"{number:043}" for number in range(VALUES)):
            for token in tokens:
                try:
                    reply = service.present(token, value)
                except (OSError, HTTPException):
                    return
                assert reply.status == 200
                acknowledged.add((token, value))
                if len(acknowledged) == KILLED_AFTER:
                    enough.set()

    for token in tokens:
        _present(service, token, VALUE)
    with ThreadPoolExecutor(1) as executor:
        presenting = executor.submit(present_until_killed)
        in_time = enough.wait(PATIENCE)
        service.supervisor.kill()
        presenting.result()
    assert in_time, f"{len(acknowledged)} values were acknowledged, which is not enough"
    return acknowledged | {(token, VALUE) for token in tokens}
