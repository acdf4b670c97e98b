"""`responder serve`: from the command line to the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from responder import supervisor
from responder.cli.context import Context

if TYPE_CHECKING:
    from responder.store import Store


@click.command()
@click.pass_obj
def serve(context: Context) -> None:
    """Run the service until SIGTERM."""
    settings = context.settings
    for warning in settings.warnings():
        click.echo(f"responder: warning: {warning}", err=True)
    context.with_store(_nothing)  # a database that cannot be used is worth one clear line, before anything starts
    supervisor.become(
        supervisor.Plan(
            dns=[(endpoint.host, endpoint.port) for endpoint in settings.dns.listen],
            api=[(endpoint.host, endpoint.port) for endpoint in settings.api.listen],
            admin=[(endpoint.host, endpoint.port) for endpoint in settings.admin.listen],
            processes=settings.dns.processes,
            settings=settings.model_dump(mode="json"),
        )
    )


async def _nothing(_: Store) -> None:
    return
