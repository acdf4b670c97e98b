"""`responder webhook`: starts the webhook for cert-manager, without a configuration file and without a database."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import click

from responder import logs
from responder.cli.context import failures_logged
from responder.cli.parameters import LABEL, Parsed, Text
from responder.config import Endpoint
from responder.tokens.manifests import WEBHOOK_GROUP, WEBHOOK_SOLVER
from responder.tokens.network import CLUSTER_DOMAIN

_FILE = click.Path(path_type=Path)


# Names of Kubernetes. The solver's must be in lower case, because clients lower-case names of resources.
_GROUP = Text("group", rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})+", f"a name in lower case such as {WEBHOOK_GROUP!r}")
_SOLVER = Text("name", LABEL, f"a name in lower case such as {WEBHOOK_SOLVER!r}")
_DOMAIN = Text("domain", rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*", f"a name in lower case such as {CLUSTER_DOMAIN!r}")
_ENDPOINT = Parsed("address:port", partial(Endpoint.parse, example=8443))


@click.command()
@click.option(
    "--listen",
    type=_ENDPOINT,
    multiple=True,
    default=["0.0.0.0:8443"],
    show_default=True,
    help="Address for HTTPS; [::]:8443 accepts IPv6 and IPv4. Repeatable.",
)
@click.option(
    "--tls-cert-file",
    type=_FILE,
    required=True,
    help="Serving certificate with its chain, in PEM. It is read again when it changes.",
)
@click.option("--tls-private-key-file", type=_FILE, required=True, help="Private key of the certificate, in PEM.")
@click.option(
    "--group", type=_GROUP, default=WEBHOOK_GROUP, show_default=True, help="API group: `groupName` in issuers."
)
@click.option(
    "--solver",
    type=_SOLVER,
    default=WEBHOOK_SOLVER,
    show_default=True,
    help="Name of the solver: `solverName` in issuers.",
)
@click.option(
    "--service-account-dir",
    type=_FILE,
    default="/var/run/secrets/kubernetes.io/serviceaccount",
    show_default=True,
    help="Directory with the token and ca.crt of the service account.",
)
@click.option(
    "--read-challenges",
    is_flag=True,
    help="Read the Challenges of cert-manager, for tokens that are pinned to an ACME account. This needs RBAC.",
)
@click.option(
    "--cluster-domain",
    type=_DOMAIN,
    default=CLUSTER_DOMAIN,
    show_default=True,
    help="DNS domain of the cluster. Issuers may use http for NAME.NAMESPACE.svc, with or without this domain.",
)
@click.option(
    "--plain-http-host",
    multiple=True,
    metavar="HOST",
    help="Another host for which issuers may use http, such as 127.0.0.1 for a sidecar. Repeatable.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Log events of this level and above.",
)
def webhook(
    listen: tuple[Endpoint, ...],
    tls_cert_file: Path,
    tls_private_key_file: Path,
    group: str,
    solver: str,
    service_account_dir: Path,
    read_challenges: bool,  # noqa: FBT001  # an option's name
    cluster_domain: str,
    plain_http_host: tuple[str, ...],
    log_level: str,
) -> None:
    """Run the webhook for cert-manager until SIGTERM."""
    from responder.webhook.issuer import PlainHttp
    from responder.webhook.main import Options, main

    logs.configure(level=log_level, format="auto")
    options = Options(
        listen=[(endpoint.host, endpoint.port) for endpoint in listen],
        certificate=tls_cert_file,
        key=tls_private_key_file,
        group=group,
        solver=solver,
        service_account=service_account_dir,
        reads_challenges=read_challenges,
        plain_http=PlainHttp(cluster_domain, frozenset(plain_http_host)),
    )
    with failures_logged():
        asyncio.run(main(options, os.environ))
