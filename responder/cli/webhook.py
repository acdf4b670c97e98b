"""`responder webhook`: from the command line to the solver. It reads no configuration file and opens no database."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import click

from responder import logs
from responder.config import Endpoint
from responder.errors import Invalid

_FILE = click.Path(path_type=Path)


class _Endpoint(click.ParamType[Endpoint]):
    name = "address:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        try:
            return Endpoint.parse(str(value), example=8443)
        except Invalid as fault:
            self.fail(str(fault), param, ctx)


class _Pattern(click.ParamType[str]):
    """Names as Kubernetes has them; clients lower-case the solver's, which is a resource to them."""

    def __init__(self, name: str, pattern: str, example: str) -> None:
        self.name = name
        self._pattern = pattern
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(self._pattern, str(value)):
            self.fail(f"{value!r} is not a name in lower case such as {self._example!r}", param, ctx)
        return str(value)


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_GROUP = _Pattern("group", rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})+", "acme.responder.dev")
_SOLVER = _Pattern("name", _LABEL, "responder")


@click.command()
@click.option(
    "--listen",
    type=_Endpoint(),
    multiple=True,
    default=["0.0.0.0:8443"],
    show_default=True,
    help="Where to serve HTTPS; [::]:8443 takes IPv6 and IPv4. Repeatable.",
)
@click.option(
    "--tls-cert-file",
    type=_FILE,
    required=True,
    help="Serving certificate with its chain, PEM; followed as it changes.",
)
@click.option("--tls-private-key-file", type=_FILE, required=True, help="Its key, PEM.")
@click.option(
    "--group", type=_GROUP, default="acme.responder.dev", show_default=True, help="API group: groupName in issuers."
)
@click.option(
    "--solver", type=_SOLVER, default="responder", show_default=True, help="Name of the solver: solverName in issuers."
)
@click.option(
    "--service-account-dir",
    type=_FILE,
    default="/var/run/secrets/kubernetes.io/serviceaccount",
    show_default=True,
    help="Where the token and ca.crt of the service account are mounted.",
)
@click.option(
    "--read-challenges",
    is_flag=True,
    help="List cert-manager's Challenges, for tokens that are pinned to an ACME account. It takes RBAC.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def webhook(
    listen: tuple[Endpoint, ...],
    tls_cert_file: Path,
    tls_private_key_file: Path,
    group: str,
    solver: str,
    service_account_dir: Path,
    read_challenges: bool,  # noqa: FBT001  # click's way
    log_level: str,
) -> None:
    """Run the solver for cert-manager in a cluster, until SIGTERM."""
    from responder.webhook import Options, main  # takes longer to import than --help to print

    logs.configure(level=log_level, format="auto")
    options = Options(
        listen=[(endpoint.host, endpoint.port) for endpoint in listen],
        certificate=tls_cert_file,
        key=tls_private_key_file,
        group=group,
        solver=solver,
        service_account=service_account_dir,
        reads_challenges=read_challenges,
    )
    asyncio.run(main(options, os.environ))
