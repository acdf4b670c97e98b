"""`responder serve`: from the command line to the supervisor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

import click

from responder.cli.context import Context
from responder.config import ApiSettings, Endpoint
from responder.errors import InvalidConfiguration, Unavailable
from responder.files.keyfile import read_key
from responder.process import supervisor

if TYPE_CHECKING:
    from responder.store import Store


READY_DEADLINE = 4.0
"""Seconds that the readiness check may take: it gives its own parts two."""


@click.command()
@click.option("--ready", is_flag=True, help="Run nothing: ask the service that runs already whether it is ready.")
@click.pass_obj
def serve(context: Context, ready: bool) -> None:  # noqa: FBT001  # an option's name
    """Run the service until SIGTERM."""
    settings = context.settings
    if ready:
        _ask_whether_ready(settings.admin.listen)
        return
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


def _ask_whether_ready(listen: Sequence[Endpoint]) -> None:
    """Ask `/readyz` on the first of the admin listeners, and no proxy. Raises `Unavailable` with what fails."""
    if not listen:
        raise Unavailable("admin.listen is empty, so nobody can ask whether the service is ready")
    admin = listen[0].reachable
    connection = HTTPConnection(admin.host, admin.port, timeout=READY_DEADLINE)
    try:
        connection.request("GET", "/readyz")
        checks = json.load(connection.getresponse())
        failed = [f"{name}: {result}" for name, result in checks.items() if result != "ok"]
    except (OSError, HTTPException, ValueError, AttributeError):
        raise Unavailable(f"no responder answers at {admin} (admin.listen)") from None
    finally:
        connection.close()
    if failed:
        raise Unavailable("; ".join(failed))
    click.echo("ready")


def check_pair(api: ApiSettings) -> None:
    """See that TLS can use the pair in the files that *api* names. Raises `Invalid`."""
    from responder.api.tls import ServerTls
    from responder.certificate.files import Files

    ServerTls(Files(api, lambda _: None).read())


async def _nothing(_: Store) -> None:
    return
