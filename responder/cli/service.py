"""`responder serve`: checks the configuration, and becomes the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import click
import structlog

from responder import logs
from responder.cli.context import Context, failures_logged
from responder.cli.running import ask
from responder.cli.starting import check_pair, keep, plan_of, prepare_key_file, warn
from responder.config import DatabaseSettings, Endpoint, Kept, Settings, Sources
from responder.errors import InvalidConfiguration, ResponderError, StoreUnavailable, Unavailable, faults_of
from responder.process import plan
from responder.process.candidate import OPTION
from responder.process.plan import Plan, cannot_bind

_log = structlog.get_logger("serve")


@click.command()
@click.option(
    "--ready", is_flag=True, help="Do not run the service: report whether the service that is running is ready."
)
@click.option(OPTION, "answer_to", type=int, hidden=True)
@click.pass_obj
def serve(context: Context, ready: bool, answer_to: int | None) -> None:  # noqa: FBT001  # an option's name
    """Run the service until SIGTERM. SIGHUP has it take over a changed configuration, or another version."""
    if ready:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # `commands` blocks it for the service
        _ask_whether_ready(_settings_in_force(context).admin.listen)
        return
    if answer_to is not None:
        from responder.cli.candidacy import stand

        raise SystemExit(stand(context.config, answer_to))
    logs.configure(level="info", format="auto")  # until the configuration is read
    with failures_logged():
        plan.become(_choose(context.config))


def _choose(path: Path | None) -> Plan:
    """
    The plan of the configuration. If that cannot be used, it is the plan of the last configuration that worked, so a
    service does not stop after a typing error. Raises the first fault if neither works.
    """
    kept = Kept.of(os.environ)
    last = kept.read()
    sources: Sources | None = None
    try:
        sources = Sources.read(path, os.environ)
        chosen, is_complete = _prepare(sources.load(), has_run=sources == last, patient=last in (None, sources))
    except ResponderError as fault:
        if last is None or last == sources:
            raise
        return _fall_back(last, fault)
    if is_complete:
        keep(kept, sources)
    return chosen


def _fall_back(last: Sources, fault: ResponderError) -> Plan:
    """The plan of *last*, because of *fault*, which is raised if *last* does not work either."""
    try:
        chosen, _ = _prepare(last.load(), has_run=True, patient=False)
    except ResponderError:
        raise fault from None
    for reason in faults_of(fault):
        _log.error("the configuration cannot be used; going on with that of the last start", reason=reason)
    return replace(chosen, faults=[*faults_of(fault)])


def _prepare(settings: Settings, *, has_run: bool, patient: bool) -> tuple[Plan, bool]:
    """
    What to run, and whether the database is there. It checks the sockets, then the database, then the key file, before
    anything is made or started, so that each fault is reported clearly. Raises what commands raise.

    A service that *has_run* with these settings starts without the files that DNS does not need. If it is *patient*, it
    starts without a database server that is unavailable, and waits for it.
    """
    logs.configure(level=settings.log.level, format=settings.log.format)
    if not has_run:
        check_pair(settings.api)
    wanted = plan_of(settings)
    if faults := cannot_bind(wanted):
        raise InvalidConfiguration(faults)
    for reason in wanted.left_over():
        _log.warning("a port of the socket unit is not in use", reason=reason)
    is_there = _prepare_database(settings.database, patient=patient)
    if not has_run:
        prepare_key_file(settings)
    warn(settings)
    return wanted, is_there


def _prepare_database(database: DatabaseSettings, *, patient: bool) -> bool:
    """
    Check that the service can use the database: make a new one, or upgrade its schema if the settings allow it.

    Returns whether the database is there. If it is a server that is unavailable, only a *patient* service goes on.
    """
    from responder.store import Store

    async def open_and_close() -> None:
        await (await Store.open(database.url, auto_upgrade=database.auto_upgrade)).close()

    try:
        asyncio.run(open_and_close())
    except StoreUnavailable:
        if database.path is not None or not patient:
            raise
        return False
    return True


def _ask_whether_ready(listen: Sequence[Endpoint]) -> None:
    """Ask `/readyz` of the first admin listener, without a proxy. Raises `Unavailable` with what fails."""
    if not listen:
        raise Unavailable("admin.listen is empty: set an address there to check whether the service is ready")
    admin = listen[0].reachable
    try:
        status, checks = ask(admin, "/readyz")
    except (OSError, HTTPException, ValueError):
        raise Unavailable(f"no service responds at {admin}: check admin.listen, and start the service") from None
    failed = [f"{name}: {result}" for name, result in checks.items() if not str(result).startswith("ok")]
    if status != 200:
        raise Unavailable("; ".join(failed))
    click.echo("ready")
    for condition in failed:  # parts that DNS does not need
        click.echo(f"responder: warning: {condition}", err=True)


def _settings_in_force(context: Context) -> Settings:
    """The settings, or those of the last start if the configuration has a fault: a running service uses these."""
    try:
        return context.settings
    except InvalidConfiguration:
        last = Kept.of(os.environ).read()
        if last is None:
            raise
        return last.load()
