"""`responder serve`: from the command line to the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http.client import HTTPException

import click
import structlog

from responder import logs
from responder.cli.context import Context, failures_logged
from responder.cli.running import ask
from responder.config import ApiSettings, DatabaseSettings, Endpoint
from responder.errors import InvalidConfiguration, Unavailable
from responder.files.keyfile import read_key
from responder.process import supervisor

_log = structlog.get_logger("serve")


@click.command()
@click.option("--ready", is_flag=True, help="Run nothing: ask the service that runs already whether it is ready.")
@click.pass_obj
def serve(context: Context, ready: bool) -> None:  # noqa: FBT001  # an option's name
    """Run the service until SIGTERM."""
    if ready:
        _ask_whether_ready(context.settings.admin.listen)
        return
    logs.configure(level="info", format="auto")  # until the configuration says how
    with failures_logged():
        supervisor.become(_plan(context))


def _plan(context: Context) -> supervisor.Plan:
    """
    What to run. What it needs and cannot have is worth a clear line before anything is started: first the sockets, then
    the database and the key file. Raises what commands raise.
    """
    settings = context.settings
    logs.configure(level=settings.log.level, format=settings.log.format)
    for warning in settings.warnings():
        _log.warning("the configuration may not do what you expect", reason=warning)
    key_file = settings.tsig_key_file if settings.dns.update.enabled else None
    dump = settings.model_dump(mode="json")
    dump["dns"]["update"]["enabled"] = key_file is not None
    if settings.api.tls == "files":  # later, the service goes on without a valid pair: DNS has to
        check_pair(settings.api)
    plan = supervisor.Plan(
        dns=[(endpoint.host, endpoint.port) for endpoint in settings.dns.listen],
        api=[(endpoint.host, endpoint.port) for endpoint in settings.api.listen],
        admin=[(endpoint.host, endpoint.port) for endpoint in settings.admin.listen],
        processes=settings.dns.processes,
        spares=1 if settings.dns.spare else 0,
        settings=dump,
    )
    if faults := supervisor.cannot_bind(plan):
        raise InvalidConfiguration(faults)
    asyncio.run(_prepare_database(settings.database))
    if key_file is not None:
        read_key(key_file)
    return plan


def _ask_whether_ready(listen: Sequence[Endpoint]) -> None:
    """Ask `/readyz` on the first of the admin listeners, and no proxy. Raises `Unavailable` with what fails."""
    if not listen:
        raise Unavailable("admin.listen is empty, so nobody can ask whether the service is ready")
    admin = listen[0].reachable
    try:
        status, checks = ask(admin, "/readyz")
    except (OSError, HTTPException, ValueError):
        raise Unavailable(f"no responder answers at {admin} (admin.listen)") from None
    failed = [f"{name}: {result}" for name, result in checks.items() if not str(result).startswith("ok")]
    if status != 200:
        raise Unavailable("; ".join(failed))
    click.echo("ready")
    for condition in failed:  # of what DNS does not need
        click.echo(f"responder: warning: {condition}", err=True)


def check_pair(api: ApiSettings) -> None:
    """See that TLS can use the pair in the files that *api* names. Raises `Invalid`."""
    from responder.api.tls import ServerTls
    from responder.certificate.files import Files

    ServerTls(Files(api, lambda _: None).read())


async def _prepare_database(database: DatabaseSettings) -> None:
    """See that the service can use the database: a new one is made, an old one is changed if the settings allow it."""
    from responder.store import Store

    await (await Store.open(database.url, auto_upgrade=database.auto_upgrade)).close()
