"""`responder audit`: who changed which values and tokens, from where, and what was refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from responder.cli.context import OUTPUT, Context, instant_text, print_json
from responder.cli.parameters import Duration, Hostname, TokenId
from responder.cli.tables import WIDE, print_table, short_ids
from responder.names import Name
from responder.store import AUDIT_KEPT, AuditEvent, AuditResult, Store


@click.command()
@click.option(
    "--since", type=Duration(), default="1h", show_default=True, help="Show the events of this time until now."
)
@click.option("--host", type=Hostname(), help="Show only the events of this hostname and its tokens.")
@click.option(
    "--token", type=TokenId(), help="Show only the events of this token, which may be given by its first characters."
)
@click.option("--refused", is_flag=True, help="Show only what was refused.")
@WIDE
@OUTPUT
@click.pass_obj
def audit(
    context: Context,
    since: timedelta,
    host: Name | None,
    token: str | None,
    refused: bool,  # noqa: FBT001  # an option's name
    wide: bool,  # noqa: FBT001  # an option's name
    output: str,
) -> None:
    """Show who changed which values and tokens, from where, and what was refused."""

    async def read(store: Store) -> tuple[list[AuditEvent], list[UUID]]:
        return await store.audit(datetime.now(UTC) - since, host), await store.token_ids()

    found, ids = context.with_store(read)
    events = [
        event
        for event in found
        if (token is None or str(event.token_id or "").startswith(token))
        and (not refused or event.result is AuditResult.REFUSED)
    ]
    if output == "json":
        print_json([_as_json(event) for event in events])
        return
    short = short_ids([*ids, *(event.token_id for event in events if event.token_id is not None)], wide=wide)
    print_table(
        ["TIME", "ACTION", "OUTCOME", "HOSTNAME", "VALUE", "TOKEN ID", "CLIENT", *(["REASON"] if wide else [])],
        [
            [
                instant_text(event.at),
                event.action.value,
                event.result.value,
                str(event.hostname or "-"),
                event.value or "-",
                short[event.token_id] if event.token_id is not None else "-",
                event.client or "-",
                *([event.reason or ""] if wide else []),
            ]
            for event in events
        ],
        empty="there are no such events: see --since, --host, --token and --refused",
        wide=wide,
        cut=["HOSTNAME", "VALUE", "CLIENT"],
        notes=[] if wide else [event.reason or "" for event in events],
    )
    if since > AUDIT_KEPT:
        click.echo(f"responder: warning: events are kept for {AUDIT_KEPT.days} days only", err=True)


def _as_json(event: AuditEvent) -> dict[str, Any]:
    return {
        "at": event.at.isoformat(),
        "action": event.action.value,
        "outcome": event.result.value,
        "hostname": str(event.hostname) if event.hostname is not None else None,
        "value": event.value,
        "token_id": str(event.token_id) if event.token_id is not None else None,
        "client": event.client,
        "reason": event.reason,
    }
