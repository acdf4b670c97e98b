"""
Presents a test value, checks that all nameservers and the resolver serve it, and cleans it up, also after an error.

The value is written to the database, as by all commands, so this also proves that the running service follows. If this
process is killed, the value expires by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from responder.doctor.hostname import asked_name, judge_path, unresolved
from responder.doctor.questions import QueryResult, Reply, Server, wait_for_none
from responder.doctor.report import CheckName, Finding, Mark, cross, tick
from responder.doctor.walk import Walk
from responder.errors import ResponderError
from responder.names import Name
from responder.store import Cleanup, Operation, Present
from responder.tokens.token import Grant

VALUE_BYTES = 32
"""Random octets in a value, which then looks like any challenge value: 43 characters of base64url."""

PROBE_LIFETIME = timedelta(minutes=5)
"""Lifetime of a value, in case it cannot be cleaned up."""

SERVED_PATIENCE = 10.0
"""Seconds within which every nameserver has to serve the value: ten times what the service promises."""

RESOLVED_PATIENCE = 15.0
"""Seconds within which the resolver has to find the value, in addition to the time that it may cache its absence."""

CLIENT = "responder check"
"""The client of the value in the audit."""


Apply = Callable[[Operation], Awaitable[None]]
"""Applies an operation to the store. Raises what the store raises, refusals included."""


async def examine(
    walk: Walk, apply: Apply, token_id: UUID, grant: Grant, nameservers: Sequence[Server], negative_ttl: int
) -> list[Finding]:
    """
    Present a test value for *grant* with *apply* and a token that covers it, look for it at *nameservers* and through
    the resolver, which may cache its absence for *negative_ttl* seconds, and clean it up.
    """
    if not nameservers:
        return [_untried(grant)]
    value = secrets.token_urlsafe(VALUE_BYTES)
    try:
        async with _presented(apply, token_id, grant.challenge_name, value):
            findings = [
                await _judge_served(walk, grant.challenge_name, value, nameservers),
                await _judge_resolved(walk, grant, value, RESOLVED_PATIENCE + negative_ttl),
            ]
        return [*findings, await _judge_cleared(walk, grant.challenge_name, value, nameservers)]
    except ResponderError as fault:
        return [
            cross(
                CheckName.PROBE,
                f"a test value cannot be presented and cleaned up: {fault}",
                "see which values exist; the test value expires by itself within minutes:",
                "responder value list",
            )
        ]


def _untried(grant: Grant) -> Finding:
    return cross(
        CheckName.PROBE,
        f"no test value was written for {grant.hostname}, because no nameserver can serve it",
        "fix the other problems first, then check again:",
        f"responder check --write {grant.hostname}",
    )


@asynccontextmanager
async def _presented(apply: Apply, token_id: UUID, name: Name, value: str) -> AsyncIterator[None]:
    """Present the value for the duration of the block. Raises as *apply*."""
    try:
        expires_at = datetime.now(UTC) + PROBE_LIFETIME
        await apply(Present(token_id=token_id, challenge_name=name, value=value, expires_at=expires_at, client=CLIENT))
        yield
    finally:
        # Also if presenting was interrupted, because it may have succeeded.
        await apply(Cleanup(token_id=token_id, challenge_name=name, value=value, client=CLIENT))


async def _judge_served(walk: Walk, name: Name, value: str, nameservers: Sequence[Server]) -> Finding:
    async def lacking() -> list[Server]:
        return [server for server, texts in (await _look(walk, name, nameservers)).items() if value not in texts]

    left = await wait_for_none(lacking, SERVED_PATIENCE)
    if not left:
        return tick(CheckName.PROBE, "every nameserver that replies serves the test value")
    return cross(
        CheckName.PROBE,
        f"the test value is in the database, but is not served by {', '.join(map(str, left))}",
        "make sure that the service there uses the same database as this command, and see its log:",
        "responder config check | grep database.url",
        "journalctl --unit responder --since -1h",
    )


async def _judge_resolved(walk: Walk, grant: Grant, value: str, patience: float) -> Finding:
    async def lacking() -> list[QueryResult]:
        outcome = await walk.resolve(asked_name(grant), "TXT")
        is_there = isinstance(outcome, Reply) and value in outcome.texts(outcome.alias_end(asked_name(grant)))
        return [] if is_there else [outcome]

    left = await wait_for_none(lacking, patience)
    if not left:
        return tick(CheckName.RESOLVER, f"it finds the test value at {asked_name(grant)}")
    path = judge_path(walk, grant, left[-1])
    return path if path.mark is Mark.CROSS else unresolved(walk, grant, "it finds the name, but not the test value")


async def _judge_cleared(walk: Walk, name: Name, value: str, nameservers: Sequence[Server]) -> Finding:
    async def serving() -> list[Server]:
        return [server for server, texts in (await _look(walk, name, nameservers)).items() if value in texts]

    left = await wait_for_none(serving, SERVED_PATIENCE)
    if not left:
        return tick(CheckName.PROBE, "the test value was cleaned up, and is no longer served")
    return cross(
        CheckName.PROBE,
        f"the test value was cleaned up, but is still served by {', '.join(map(str, left))}",
        "see its log:",
        "journalctl --unit responder --since -1h",
    )


async def _look(walk: Walk, name: Name, nameservers: Sequence[Server]) -> dict[Server, set[str]]:
    """The values that each nameserver has at the name; none if it does not reply."""
    outcomes = await asyncio.gather(*(walk.asker.ask(server, name, "TXT") for server in nameservers))
    return {
        server: outcome.texts(name) if isinstance(outcome, Reply) else set()
        for server, outcome in zip(nameservers, outcomes, strict=True)
    }
