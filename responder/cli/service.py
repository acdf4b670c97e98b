"""`responder serve`: from the command line to the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from responder import supervisor
from responder.cli.context import Context
from responder.config import ApiSettings
from responder.errors import InvalidConfiguration
from responder.keyfile import read_key

if TYPE_CHECKING:
    from responder.store import Store


@click.command()
@click.pass_obj
def serve(context: Context) -> None:
    """Run the service until SIGTERM."""
    settings = context.settings
    for warning in settings.warnings():
        click.echo(f"responder: warning: {warning}", err=True)
    key_file = settings.tsig_key_file if settings.dns.update.enabled else None
    dump = settings.model_dump(mode="json")
    dump["dns"]["update"]["enabled"] = key_file is not None
    if settings.api.tls == "files":  # later, the service goes on whatever becomes of them: DNS has to
        check_pair(settings.api)
    plan = supervisor.Plan(
        dns=[(endpoint.host, endpoint.port) for endpoint in settings.dns.listen],
        api=[(endpoint.host, endpoint.port) for endpoint in settings.api.listen],
        admin=[(endpoint.host, endpoint.port) for endpoint in settings.admin.listen],
        processes=settings.dns.processes,
        settings=dump,
    )
    # What cannot be had is worth a clear line before anything is made or started: first the sockets, then the database
    # and the key file.
    if faults := supervisor.cannot_bind(plan):
        raise InvalidConfiguration(faults)
    context.with_store(_nothing, create=True)
    if key_file is not None:
        read_key(key_file)
    supervisor.become(plan)


def check_pair(api: ApiSettings) -> None:
    """See that TLS can use the pair in the files that *api* names. Raises `Invalid`."""
    from responder.api.tls import ServerTls
    from responder.certificate.files import Files

    ServerTls(Files(api, lambda _: None).read())


async def _nothing(_: Store) -> None:
    return
