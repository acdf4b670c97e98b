"""`responder serve`: from the command line to the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from responder import supervisor
from responder.cli.context import Context
from responder.errors import InvalidConfiguration

if TYPE_CHECKING:
    from responder.store import Store


@click.command()
@click.pass_obj
def serve(context: Context) -> None:
    """Run the service until SIGTERM."""
    settings = context.settings
    for warning in settings.warnings():
        click.echo(f"responder: warning: {warning}", err=True)
    plan = supervisor.Plan(
        dns=[(endpoint.host, endpoint.port) for endpoint in settings.dns.listen],
        api=[(endpoint.host, endpoint.port) for endpoint in settings.api.listen],
        admin=[(endpoint.host, endpoint.port) for endpoint in settings.admin.listen],
        processes=settings.dns.processes,
        settings=settings.model_dump(mode="json"),
    )
    # What cannot be had is worth a clear line before anything is made or started: first the sockets, then the database.
    if faults := supervisor.cannot_bind(plan):
        raise InvalidConfiguration(faults)
    context.with_store(_nothing)
    supervisor.become(plan)


async def _nothing(_: Store) -> None:
    return
