"""`responder audit`: who changed which values and tokens, from where, and what was refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from responder.cli.context import OUTPUT, Context, instant_text, print_json, print_table
from responder.cli.parameters import Duration, Hostname
from responder.names import Name
from responder.store import AUDIT_KEPT, AuditEvent


@click.command()
@click.option(
    "--since", type=Duration(), default="1h", show_default=True, help="Show the events of this time until now."
)
@click.option("--host", type=Hostname(), help="Show only the events of this hostname and its tokens.")
@OUTPUT
@click.pass_obj
def audit(context: Context, since: timedelta, host: Name | None, output: str) -> None:
    """Show who changed which values and tokens, from where, and what was refused."""
    events = context.with_store(lambda store: store.audit(datetime.now(UTC) - since, host))
    if output == "json":
        print_json([_as_json(event) for event in events])
        return
    print_table(
        ["TIME", "ACTION", "OUTCOME", "HOSTNAME", "VALUE", "TOKEN", "CLIENT", "REASON"],
        (
            [
                instant_text(event.at),
                event.action.value,
                event.result.value,
                *(str(each) if each is not None else "-" for each in (event.hostname, event.value, event.token_id)),
                event.client or "-",
                event.reason or "",
            ]
            for event in events
        ),
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
