"""`responder manifest`: what cert-manager needs to get a certificate for a hostname, ready for `kubectl apply`."""

from __future__ import annotations

from enum import Enum
from typing import Any

import click

from responder.cli.context import Context, print_json
from responder.cli.manifest import plan
from responder.cli.manifest.arguments import NAME, NAMESERVER, NAMESPACE, WORD, Kind, Options
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
    help="How cert-manager talks to this service: by our webhook, or by a client that it has built in.",
)
@click.option("--url", type=BASE_URL, help="Where the API is, for webhook and acme-dns. Otherwise api.url.")
@click.option(
    "--token-file",
    type=FILE,
    help="The token, or for rfc2136 what `token mint --format tsig` prints; - is stdin. Otherwise you fill it in.",
)
@click.option("--namespace", type=NAMESPACE, help="Of Issuer, Certificate and Secrets. Otherwise kubectl decides.")
@click.option("--name", type=NAME, help="Of Issuer and Certificate, and start of their Secrets'. By default the host.")
@click.option(
    "--server",
    type=SERVER,
    default="letsencrypt",
    show_default=True,
    help="The ACME directory: letsencrypt, letsencrypt-staging, or a URL.",
)
@click.option("--server-ca-file", type=FILE, help="PEM certificates by which cert-manager knows a CA of your own.")
@click.option("--email", type=WORD, help="Where the CA may write to you.")
@click.option("--eab-kid", type=WORD, help="Key id of the external account, for a CA that asks for one.")
@click.option("--eab-key-file", type=FILE, help="HMAC key of the external account, as the CA shows it; - is stdin.")
@click.option("--ca-file", type=FILE, help="PEM certificates by which the webhook knows the API. Otherwise all CAs.")
@click.option(
    "--nameserver", type=NAMESERVER, help="Where rfc2136 sends updates. Otherwise the zone's first nameserver."
)
@click.option(
    "--select",
    type=_values(Select),
    default=Select.NAMES.value,
    show_default=True,
    help="Use this solver for exactly these hostnames, or for all below them, too.",
)
@click.option("--cluster-issuer", is_flag=True, help="Make a ClusterIssuer, which every namespace may use.")
@click.option(
    "--cluster-namespace",
    type=NAMESPACE,
    default="cert-manager",
    show_default=True,
    help="Where cert-manager looks for the Secrets of a ClusterIssuer.",
)
@click.option(
    "--webhook-namespace", type=NAMESPACE, default="responder", show_default=True, help="Where the webhook is."
)
@click.option(
    "--webhook-account", type=NAME, default="responder-webhook", show_default=True, help="Its service account."
)
@click.option("--webhook-group", type=NAME, default=manifests.WEBHOOK_GROUP, show_default=True, help="Its API group.")
@click.option("--webhook-solver", type=NAME, default=manifests.WEBHOOK_SOLVER, show_default=True, help="Its solver.")
@click.option("--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.pass_obj
def manifest(context: Context, /, hosts: tuple[str, ...], solver: str, select: str, output: str, **others: Any) -> None:
    """
    Print what cert-manager needs for a certificate.

    That is a Secret, an Issuer and a Certificate, to be piped into `kubectl apply -f -`.
    """
    given = Options(solver=Kind(solver), select=Select(select), **others)
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
