"""Describes tokens as text and as JSON, without their secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from responder.cli.context import instant_text
from responder.errors import NotServed
from responder.tokens.serving import Serving
from responder.tokens.token import State, Token, describe, tsig_key_name


def as_json(token: Token, serving: Serving) -> dict[str, Any]:
    """A token with all of its details; *serving* is what the service serves."""
    more = {
        "created_at": token.created_at.isoformat(),
        "last_used_at": token.last_used_at.isoformat() if token.last_used_at else None,
        "revoked_at": token.revoked_at.isoformat() if token.revoked_at else None,
        "generation": token.generation,
        "tsig_key_name": tsig_key_name(token),
        "state": state(token, serving),
    }
    return describe(token, serving) | more


def state(token: Token, serving: Serving) -> str:
    """The state of a token; an active one is "not served" if the zones of its hostnames are not served."""
    state = token.state(datetime.now(UTC))
    served = {grant.is_served(serving) for grant in token.grants}
    if state is not State.ACTIVE or False not in served:
        return state.value
    return "partly served" if True in served else "not served"


def lines(token: Token, serving: Serving) -> Iterator[str]:
    """A token with all of its details, as text."""
    yield f"id           {token.id}"
    yield f"state        {state(token, serving)}"
    yield f"description  {token.description or ''}".rstrip()
    yield f"created      {instant_text(token.created_at)}"
    yield f"last used    {instant_text(token.last_used_at)}"
    yield f"expires      {instant_text(token.expires_at)}"
    yield f"allowed from {', '.join(map(str, token.allow_from)) or 'anywhere'}"
    yield f"pinned to    {account(token)}"
    yield f"generation   {token.generation}"
    yield f"TSIG key     {tsig_key_name(token)}"
    yield from grant_lines(token, serving)


def grant_lines(token: Token, serving: Serving) -> Iterator[str]:
    """
    Each hostname, with the CNAME that it needs on a line of its own, which can be pasted into a zone file; or with
    another need, or the reason why it is not served.
    """
    for grant in token.grants:
        try:
            grant.check_served(serving)
        except NotServed as fault:
            yield f"{grant.hostname}: {fault}"
            continue
        if not grant.names_a_host:
            yield f"{grant.challenge_name}: for any hostname with a CNAME to it"
        elif grant.cname is None:
            yield f"{grant.hostname}: {grant.needs}"
        else:
            yield f"{grant.hostname}: its zone needs this record:"
            yield grant.cname


def warn(token: Token, serving: Serving) -> None:
    """Warn on stderr, next to JSON on stdout, of hostnames that are not served."""
    for grant in token.grants:
        try:
            grant.check_served(serving)
        except NotServed as fault:
            click.echo(f"responder: warning: {grant.hostname}: {fault}", err=True)


def account(token: Token) -> str:
    """The ACME account that a token is pinned to."""
    return f"account {token.account_thumbprint}" if token.account_thumbprint else "no account"


def shorten(texts: Sequence[str]) -> str:
    """The first three of *texts*, and the number of the others."""
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
