"""
The proof that a value gets through: one of our own is presented, looked for everywhere, and cleaned up, come what may.

It is written to the database, as the command line writes everything; that the running service picks it up is part of
what is proved. If this process is killed outright, the value expires by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from responder.doctor.hostname import asked_name, judge_path, unresolved
from responder.doctor.questions import Outcome, Reply, Server, wait_for_none
from responder.doctor.report import Check, Finding, Mark, cross, tick
from responder.doctor.walk import Walk
from responder.errors import ResponderError
from responder.names import Name
from responder.store import Cleanup, Operation, Present
from responder.tokens.token import Grant

VALUE_BYTES = 32
"""Of randomness in a value, which then looks like that of any challenge: 43 characters of base64url."""

LIFETIME = timedelta(minutes=5)
"""Until a value expires that nobody was left to clean up."""

SERVED_PATIENCE = 10.0
"""Seconds until every nameserver has to serve the value: ten times what the service promises."""

RESOLVED_PATIENCE = 15.0
"""Seconds, besides those for which a resolver may remember that there was none, until it has to find the value."""

CLIENT = "responder check"
"""Where the audit says that the value came from."""


Apply = Callable[[Operation], Awaitable[None]]
"""Carries out what is to be written. Raises what the store raises, and what it refuses with."""


async def examine(
    walk: Walk, apply: Apply, token_id: UUID, grant: Grant, nameservers: Sequence[Server], negative_ttl: int
) -> list[Finding]:
    """
    Present a value of our own for *grant* by *apply*, with a token that covers it; look for it at *nameservers* and
    through the resolver, which may remember for *negative_ttl* seconds that there was none; clean it up.
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
                Check.PROBE,
                f"no value can be presented and cleaned up: {fault}",
                "see what is there; a value of this command expires by itself, within minutes:",
                "responder value list",
            )
        ]


def _untried(grant: Grant) -> Finding:
    return cross(
        Check.PROBE,
        f"no value was written for {grant.hostname}, as no nameserver is there to serve it",
        "fix the other crosses first, then check again:",
        f"responder check --write {grant.hostname}",
    )


@asynccontextmanager
async def _presented(apply: Apply, token_id: UUID, name: Name, value: str) -> AsyncIterator[None]:
    """Have the value in place for as long as the block lasts. Raises as *apply*."""
    try:
        expires_at = datetime.now(UTC) + LIFETIME
        await apply(Present(token_id=token_id, challenge_name=name, value=value, expires_at=expires_at, client=CLIENT))
        yield
    finally:
        # Also if presenting was interrupted: nobody knows then whether it was done.
        await apply(Cleanup(token_id=token_id, challenge_name=name, value=value, client=CLIENT))


async def _judge_served(walk: Walk, name: Name, value: str, nameservers: Sequence[Server]) -> Finding:
    async def lacking() -> list[Server]:
        return [server for server, texts in (await _look(walk, name, nameservers)).items() if value not in texts]

    left = await wait_for_none(lacking, SERVED_PATIENCE)
    if not left:
        return tick(Check.PROBE, "written to the database, it is served by every nameserver that answers")
    return cross(
        Check.PROBE,
        f"a value that was written to the database is not served by {', '.join(map(str, left))}",
        "see that the service there uses the same database as this command, and what its log says:",
        "responder config check | grep database.url",
        "journalctl --unit responder --since -1h",
    )


async def _judge_resolved(walk: Walk, grant: Grant, value: str, patience: float) -> Finding:
    async def lacking() -> list[Outcome]:
        outcome = await walk.resolve(asked_name(grant), "TXT")
        is_there = isinstance(outcome, Reply) and value in outcome.texts(outcome.alias_end(asked_name(grant)))
        return [] if is_there else [outcome]

    left = await wait_for_none(lacking, patience)
    if not left:
        return tick(Check.RESOLVER, f"it finds that value at {asked_name(grant)}")
    path = judge_path(walk, grant, left[-1])
    return path if path.mark is Mark.CROSS else unresolved(walk, grant, "it gets to the name, but not that value")


async def _judge_cleared(walk: Walk, name: Name, value: str, nameservers: Sequence[Server]) -> Finding:
    async def serving() -> list[Server]:
        return [server for server, texts in (await _look(walk, name, nameservers)).items() if value in texts]

    left = await wait_for_none(serving, SERVED_PATIENCE)
    if not left:
        return tick(Check.PROBE, "cleaned up, it is served no more")
    return cross(
        Check.PROBE,
        f"a value that was cleaned up is still served by {', '.join(map(str, left))}",
        "see what its log says:",
        "journalctl --unit responder --since -1h",
    )


async def _look(walk: Walk, name: Name, nameservers: Sequence[Server]) -> dict[Server, set[str]]:
    """The values that each nameserver has at the name; none where it does not answer."""
    outcomes = await asyncio.gather(*(walk.asker.ask(server, name, "TXT") for server in nameservers))
    return {
        server: outcome.texts(name) if isinstance(outcome, Reply) else set()
        for server, outcome in zip(nameservers, outcomes, strict=True)
    }
