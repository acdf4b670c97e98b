"""
Clients that present and clean up values, and ask for them, as one history.

Each client has a challenge name of its own. It presents a value until that is acknowledged, asks the nameserver of
every node for it at once, cleans it up until that is acknowledged, and asks again; some values it leaves. Whenever a
node does not acknowledge, the client goes on with the next one, as a client of several nodes does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from itertools import count, cycle

import dns.exception
import dns.rcode
import pytest

from .dns_client import ask, texts
from .history import Call, History, Outcome, Query, Resolution
from .programs import wait_until
from .service import Responder, Token

CLIENTS = 8
"""How many work at the same time."""

PACE = 0.1
"""Seconds between two calls of a client: the load is there to have something under way, not to fill the machine."""

KEEP = 5
"""Of so many values of a client, one is left in place; a name has room for 16."""

ASK_PATIENCE = 1.0
"""Seconds that a resolver waits for one nameserver, before it asks the next one."""

CALL_PATIENCE = 15.0
"""Seconds that a client waits for an answer to its call."""


_numbers = count()


class Load:
    """Clients of *nodes*, by name, that work until they are stopped."""

    def __init__(self, nodes: Mapping[str, Responder], tokens: Sequence[Token]) -> None:
        self.history = History()
        self._nodes = nodes
        self._number = next(_numbers)
        self._stop = threading.Event()
        self._faults: list[BaseException] = []
        works = [partial(self._client, token, number) for number, token in enumerate(tokens)]
        works.append(partial(self._resolver, [token.challenge_name for token in tokens]))
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]

    def start(self) -> None:
        """Start all clients."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client finish what it is doing. Fails the test if one of them has failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def wait_for(self, acknowledged: int, *, at: str | None = None) -> None:
        """Return when so many calls that begin from now on were acknowledged, by one node if its name is given."""
        since = time.monotonic()
        wait_until(
            lambda: self._faults or self.history.acknowledged(since, at) >= acknowledged,
            f"{acknowledged} changes are acknowledged by {at or 'any node'}",
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:  # noqa: BLE001  # the main thread raises it again
            self._faults.append(fault)

    def _client(self, token: Token, number: int) -> None:
        nodes = cycle(self._nodes)
        for _ in range(number):
            next(nodes)
        kept = self._found(token)
        for turn in count():
            if self._stop.is_set():
                return
            value = f"{self._number}-{number}-{turn}"
            self._until_acknowledged("present", token, value, nodes)
            self._ask_all(token.challenge_name)
            if turn % KEEP == 0:
                kept.append(value)
                value = kept.pop(0) if len(kept) > KEEP else ""
            if value:
                self._until_acknowledged("cleanup", token, value, nodes)
                self._ask_all(token.challenge_name)

    def _found(self, token: Token) -> list[str]:
        """What earlier clients left at the name: the history begins with it."""
        query = self._ask(token.challenge_name, next(iter(self._nodes)))
        for value in query.values or ():
            self.history.calls.append(
                Call(
                    verb="present",
                    name=query.name,
                    value=value,
                    node=query.node,
                    begin=0.0,
                    end=query.end,
                    outcome=Outcome.ACKNOWLEDGED,
                    detail="there before",
                )
            )
        return sorted(query.values or ())

    def _until_acknowledged(self, verb: str, token: Token, value: str, nodes: Iterator[str]) -> None:
        for node in nodes:
            call = self._call(verb, token, value, node)
            self.history.calls.append(call)
            time.sleep(PACE)
            if call.outcome is Outcome.ACKNOWLEDGED or self._stop.is_set():
                return

    def _call(self, verb: str, token: Token, value: str, node: str) -> Call:
        begin = time.monotonic()
        try:
            responder = self._nodes[node]
            reply = (responder.present if verb == "present" else responder.cleanup)(token, value)
        except ConnectionRefusedError:
            outcome, detail = Outcome.REFUSED, "refused"
        except (OSError, HTTPException, ValueError) as fault:
            outcome, detail = Outcome.UNKNOWN, type(fault).__name__
        else:
            detail = f"{reply.status} {reply.body}"
            assert reply.status in (200, 503), detail
            outcome = Outcome.ACKNOWLEDGED if reply.status == 200 else Outcome.UNKNOWN
        return Call(
            verb=verb,
            name=token.challenge_name,
            value=value,
            node=node,
            begin=begin,
            end=time.monotonic(),
            outcome=outcome,
            detail=detail,
        )

    def _ask_all(self, name: str) -> None:
        """Ask the nameserver of each node, as the resolvers of a CA do."""
        for node in random.sample(list(self._nodes), len(self._nodes)):
            self._ask(name, node)

    def _ask(self, name: str, node: str) -> Query:
        """Ask the nameserver of *node* for what it has of *name*."""
        begin, detail = time.monotonic(), ""
        values: frozenset[str] | None = None
        try:
            reply = ask(self._nodes[node].dns, name, "TXT", patience=ASK_PATIENCE)
        except (dns.exception.Timeout, OSError) as fault:
            detail = type(fault).__name__
        else:
            detail = dns.rcode.to_text(reply.rcode())
            values = frozenset(texts(reply)) if reply.rcode() == dns.rcode.NOERROR else None
            assert detail in ("NOERROR", "SERVFAIL"), detail
        query = Query(name=name, node=node, begin=begin, end=time.monotonic(), values=values, detail=detail)
        self.history.queries.append(query)
        return query

    def _resolver(self, names: Sequence[str]) -> None:
        """Resolve one name after the other, beginning with another nameserver each time."""
        order = list(self._nodes)
        for name in cycle(names):
            if self._stop.is_set():
                return
            begin = time.monotonic()
            # Each is asked twice: with a packet lost, or SERVFAIL, a resolver comes back to it.
            answered = any(self._ask(name, node).values is not None for node in order * 2)
            self.history.resolutions.append(Resolution(name=name, begin=begin, end=time.monotonic(), answered=answered))
            order.append(order.pop(0))
            time.sleep(PACE)


@contextmanager
def load(nodes: Mapping[str, Responder], tokens: Sequence[Token]) -> Iterator[Load]:
    """Clients at work for as long as the block lasts, which begins when each node has acknowledged something."""
    working = Load(nodes, tokens)
    working.start()
    try:
        for name in nodes:
            working.wait_for(1, at=name)
        yield working
    finally:
        working.stop()


def settle(history: History, nodes: Mapping[str, Responder], tokens: Sequence[Token]) -> None:
    """
    Wait until every node answers, and the same; then put their answers into the history, as the last queries of it.
    """

    def answers(token: Token) -> dict[str, frozenset[str] | None]:
        found: dict[str, frozenset[str] | None] = {}
        for node, responder in nodes.items():
            try:
                reply = ask(responder.dns, token.challenge_name, "TXT", patience=ASK_PATIENCE)
            except (dns.exception.Timeout, OSError):
                return {}
            found[node] = frozenset(texts(reply)) if reply.rcode() == dns.rcode.NOERROR else None
        return found

    for token in tokens:

        def agreed(token: Token = token) -> dict[str, frozenset[str] | None]:
            found = answers(token)
            return found if len({*found.values()}) == 1 and None not in found.values() else {}

        for node, values in wait_until(agreed, f"all nodes answer the same for {token.challenge_name}").items():
            now = time.monotonic()
            history.queries.append(
                Query(name=token.challenge_name, node=node, begin=now, end=now, values=values, detail="the end")
            )


def expect_kept(history: History, *, lost: frozenset[str] | None = None) -> None:
    """Fail the test if the history breaks the promise of the service."""
    if violations := history.violations(lost=lost):
        pytest.fail(f"{len(violations)} violations, among them:\n" + "\n".join(violations[:20]))
