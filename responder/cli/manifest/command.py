"""`responder manifest`: prints the objects that cert-manager needs for a certificate, for `kubectl apply`."""

from __future__ import annotations

from enum import Enum
from typing import Any

import click

from responder.cli.context import Context, print_json
from responder.cli.manifest import plan
from responder.cli.manifest.arguments import NAME, NAMESERVER, NAMESPACE, WORD, Kind, ManifestOptions
from responder.cli.parameters import BASE_URL, FILE, SERVER, parse_hosts
from responder.tokens import credentials, manifests
from responder.tokens.manifests import Select


def _values(enum: type[Enum]) -> click.Choice[str]:
    return click.Choice([each.value for each in enum])


@click.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--solver",
    type=_values(Kind),
    default=Kind.WEBHOOK.value,
    show_default=True,
    help="How cert-manager uses this service: through our webhook, or with its own acme-dns or RFC 2136 client.",
)
@click.option("--url", type=BASE_URL, help="URL of the API, for webhook and acme-dns. Default: api.url.")
@click.option(
    "--token-file",
    type=FILE,
    help="File with the token, or for rfc2136 with the output of `token mint --format tsig`. Use - for stdin. "
    "Default: a placeholder that you replace.",
)
@click.option("--namespace", type=NAMESPACE, help="Namespace of all objects. Default: the one that kubectl uses.")
@click.option(
    "--name",
    type=NAME,
    help="Name of the Issuer and the Certificate; the names of Secrets begin with it. Default: the first hostname.",
)
@click.option(
    "--server",
    type=SERVER,
    default="letsencrypt",
    show_default=True,
    help="ACME directory of the CA: letsencrypt, letsencrypt-staging, or a URL.",
)
@click.option(
    "--server-ca-file",
    type=FILE,
    help="File with the root certificate, in PEM, that the HTTPS certificate of a private CA is signed with. "
    "Use - for stdin.",
)
@click.option("--email", type=WORD, help="E-mail address that the CA may write to. Default: none.")
@click.option("--eab-kid", type=WORD, help="Key identifier of the external account, if the CA requires one.")
@click.option("--eab-key-file", type=FILE, help="File with the HMAC key of the external account. Use - for stdin.")
@click.option(
    "--ca-file",
    type=FILE,
    help="File with certificates, in PEM, that the webhook trusts for the API. Use - for stdin. "
    "Default: the public CAs.",
)
@click.option(
    "--nameserver",
    type=NAMESERVER,
    help="Nameserver that rfc2136 sends updates to. Default: the first nameserver of the zone.",
)
@click.option(
    "--select",
    type=_values(Select),
    default=Select.NAMES.value,
    show_default=True,
    help="Use this solver for exactly these hostnames (names), or also for all names below them (zones).",
)
@click.option("--cluster-issuer", is_flag=True, help="Make a ClusterIssuer, which all namespaces may use.")
@click.option(
    "--cluster-namespace",
    type=NAMESPACE,
    default="cert-manager",
    show_default=True,
    help="Namespace in which cert-manager looks for the Secrets of a ClusterIssuer.",
)
@click.option(
    "--webhook-namespace", type=NAMESPACE, default="responder", show_default=True, help="Namespace of the webhook."
)
@click.option(
    "--webhook-account",
    type=NAME,
    default="responder-webhook",
    show_default=True,
    help="Service account of the webhook.",
)
@click.option(
    "--webhook-group", type=NAME, default=manifests.WEBHOOK_GROUP, show_default=True, help="API group of the webhook."
)
@click.option(
    "--webhook-solver", type=NAME, default=manifests.WEBHOOK_SOLVER, show_default=True, help="Solver of the webhook."
)
@click.option(
    "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format of the result."
)
@click.pass_obj
def manifest(context: Context, /, hosts: tuple[str, ...], solver: str, select: str, output: str, **others: Any) -> None:
    """
    Print the Kubernetes objects that cert-manager needs for a certificate.

    These are a Secret, an Issuer and a Certificate. Pipe them into `kubectl apply -f -`.
    """
    given = ManifestOptions(solver=Kind(solver), select=Select(select), **others)
    given.check()
    wanted = parse_hosts(hosts)
    credential = plan.read_credential(given)
    found = context.with_store(lambda store: plan.find(store, list(wanted), credential))
    planned = plan.make_plan(context.settings, given, wanted, found, credential)
    for warning in plan.warnings(planned):
        click.echo(f"responder: warning: {warning}", err=True)
    rendered = manifests.objects(planned)
    if output == "json":
        print_json({"apiVersion": "v1", "kind": "List", "items": rendered})
    else:
        click.echo(credentials.to_yaml(rendered, comment=plan.comment(planned)), nl=False)
