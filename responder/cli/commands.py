"""The commands by name, and how a fault becomes an exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from io import TextIOWrapper
from keyword import iskeyword
from pathlib import Path
from typing import NoReturn

import click

from responder.errors import InvalidConfiguration, ResponderError, faults_of
from responder.foreign import system_reason
from responder.process.prctl import hide_memory

COMMANDS = {
    "serve": ("responder.cli.service", "Run the service until SIGTERM."),
    "config": ("responder.cli.configuration", "Check and show the configuration."),
    "token": ("responder.cli.tokens.group", "Mint and manage tokens."),
    "zone": ("responder.cli.zones", "Show the zones and their delegations."),
    "issue": ("responder.cli.issue", "Obtain a certificate through the running service."),
    "thumbprint": ("responder.cli.thumbprint", "Print the JWK thumbprint of an ACME account key."),
    "value": ("responder.cli.values", "List and remove challenge values."),
    "audit": ("responder.cli.audit", "Show who changed which values and tokens, from where, and what was refused."),
    "check": ("responder.cli.check", "Find what is wrong with a delegation or a hostname, and how to fix it."),
    "manifest": (
        "responder.cli.manifest.command",
        "Print the Kubernetes objects that cert-manager needs for a certificate.",
    ),
    "import": ("responder.cli.importing", "Import the accounts of another server."),
    "webhook": ("responder.cli.webhook", "Run the webhook for cert-manager until SIGTERM."),
    "node": ("responder.cli.nodes", "Show the nodes: the services that share one database."),
    "db": ("responder.cli.database", "Check and upgrade the database."),
}
"""For each command: its module, which has it under its name (or `name_`), and the first sentence of its help."""


class _Commands(click.Group):
    """Imports the module of a command only when that command runs, which makes each command start faster."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        attribute = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[:1] == ["serve"]:  # the supervisor takes a SIGHUP that comes before it is there, as a reload
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # click knows only commands that are imported
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="acme-responder")
@click.option(
    "--config",
    type=click.Path(path_type=Path, readable=False),
    help="Configuration file. Use - for stdin. Default: $RESPONDER_CONFIG, else ./responder.toml, "
    "else /etc/responder/responder.toml.",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Authoritative DNS for ACME dns-01 challenges, with tokens that can do one thing."""
    from responder.cli.context import Context

    ctx.obj = Context(config)


def main() -> NoReturn:
    """Run the program. Errors of ours become one line each, and exit status 1; a traceback means a bug."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see __main__
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hide_memory()  # it holds tokens, keys and the password of the database
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without some character still shows the rest
    try:
        cli(prog_name="responder", standalone_mode=False)
    except click.exceptions.Abort:
        _fail(["interrupted"])
    except click.ClickException as error:
        _explained(error).show()
        raise SystemExit(error.exit_code) from None
    except ResponderError as error:
        _fail(located(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail([f"failed: {place}{error.strerror or system_reason(error)}"])
    raise SystemExit(0)


def located(error: ResponderError) -> list[str]:
    """The faults that *error* reports; those in the configuration file with its path, which those of variables lack."""
    file = error.file if isinstance(error, InvalidConfiguration) else ""
    return [f"{file}: {fault}" if file and not fault.startswith("RESPONDER_") else fault for fault in faults_of(error)]


def _explained(error: click.ClickException) -> click.ClickException:
    """*error*, with a hint for a mistake that is frequent."""
    if isinstance(error, click.NoSuchOption) and error.option_name == "--config":
        more = f"{error.message} It goes before the command, as in: responder --config FILE serve"
        return click.NoSuchOption(error.option_name, message=more, ctx=error.ctx)
    return error


def _fail(lines: Iterable[str]) -> NoReturn:
    for line in lines:
        click.echo(f"responder: {line}", err=True)
    raise SystemExit(1)
