"""Plans the objects to render, from the arguments, the settings and the store. It declares no options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from responder.cli.manifest.arguments import Kind, ManifestOptions, read_certificates, read_text, read_tsig_key
from responder.config import Settings
from responder.errors import InvalidRequest
from responder.names import Name
from responder.tokens import credentials, manifests
from responder.tokens.credentials import Credential
from responder.tokens.manifests import (
    AcmeDnsConfig,
    ExternalAccount,
    Host,
    ManifestPlan,
    Rfc2136Config,
    ServiceAccount,
    SolverConfig,
    TsigKey,
    WebhookConfig,
)
from responder.tokens.network import is_loopback, is_service
from responder.tokens.secret import digest
from responder.tokens.token import State, Token, tsig_key_name

if TYPE_CHECKING:
    from responder.store import Store

Given = str | TsigKey | None
"""The text of a token, or its TSIG key; None for a placeholder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A token that covers the hostnames; *certain* if there is no other such token."""

    token: Token
    certain: bool


def read_credential(options: ManifestOptions) -> Given:
    """The content of --token-file. Raises `InvalidRequest`."""
    if options.token_file is None:
        return None
    if options.solver is Kind.RFC2136:
        return read_tsig_key(options.token_file, "--token-file")
    return read_text(options.token_file, "--token-file")


async def find(store: Store, hostnames: Sequence[Name], credential: Given) -> Found:
    """The token of *credential*, or else any token that covers the hostnames. Raises `InvalidRequest` or `NotFound`."""
    now = datetime.now(UTC)
    if credential is None:
        return _any_of(await store.tokens(), hostnames, now)
    if isinstance(credential, TsigKey):
        token: Token | None = await store.token(_token_id(credential))
    else:
        token = await store.find_token(digest(credential))
    if token is None:
        fix = "check that all of it was copied, with its rsp_ prefix"
        raise InvalidRequest([f"the token in --token-file is unknown: {fix}"])
    if token.state(now) is not State.ACTIVE:
        raise InvalidRequest(["the token in --token-file was revoked or has expired: mint another one"])
    if uncovered := _uncovered(token, hostnames):
        raise InvalidRequest([f"the token in --token-file does not cover {', '.join(uncovered)}: mint one that does"])
    return Found(token=token, certain=True)


def make_plan(
    settings: Settings, options: ManifestOptions, wanted: Mapping[Name, Sequence[bool]], found: Found, credential: Given
) -> ManifestPlan:
    """Raises `InvalidRequest` or `NotServed`."""
    grants = {grant.hostname: grant for grant in found.token.grants}
    for hostname in wanted:
        grants[hostname].check_served(settings.serving)
    hosts = [
        Host(grant=grants[hostname], wildcard=wildcard)
        for hostname, kinds in wanted.items()
        for wildcard in sorted(kinds)
    ]
    kid, key_file = options.eab_kid, options.eab_key_file
    external = None if kid is None else ExternalAccount(kid=kid)
    if kid is not None and key_file is not None:
        external = ExternalAccount(kid=kid, hmac=read_text(key_file, "--eab-key-file"))
    return ManifestPlan(
        hosts=tuple(hosts),
        solver=_solver(settings, options, found, credential),
        name=options.name or credentials.object_name(hosts[0].grant.hostname),
        server=options.server,
        server_ca=_certificates(options.server_ca_file, "--server-ca-file"),
        namespace=options.namespace,
        cluster_namespace=options.cluster_namespace if options.cluster_issuer else None,
        email=options.email,
        external_account=external,
        select=options.select,
    )


def warnings(plan: ManifestPlan) -> Iterator[str]:
    """The risks of the manifest."""
    if plan.cluster_namespace is not None:
        names = ", ".join(dict.fromkeys(str(host.grant.hostname) for host in plan.hosts))
        yield (
            f"all namespaces can use a ClusterIssuer: a user who may create a Certificate or an Ingress in any of them "
            f"can get certificates and private keys for {names}"
        )
    if isinstance(plan.solver, AcmeDnsConfig) and _is_in_the_clear(plan.solver.url):
        yield f"cert-manager will send the token unencrypted to {plan.solver.url}: use an https URL"


def comment(plan: ManifestPlan) -> Iterator[str]:
    """What the user of the manifest still has to do."""
    names = dict.fromkeys(host.name for host in plan.hosts)
    yield f"Objects for cert-manager: a certificate for {', '.join(names)}."
    if needs := credentials.needs(host.grant for host in plan.hosts):
        yield "The DNS of the hostname needs:"
        yield from (f"  {each}" for each in needs)
    if manifests.PLACEHOLDER in str(manifests.objects(plan)):
        yield f"Replace each {manifests.PLACEHOLDER} below; the text after it states what to put there."
    else:
        yield "It contains a secret: pipe it to kubectl instead of storing it in a file."
    if isinstance(plan.solver, WebhookConfig) and plan.solver.pinned:
        yield f"The token is pinned to an ACME account: put its key into the Secret {plan.account_secret}, as tls.key,"
        yield "and let the webhook read Challenges."


def _any_of(tokens: Iterable[Token], hostnames: Sequence[Name], now: datetime) -> Found:
    good = [token for token in tokens if token.state(now) is State.ACTIVE and not _uncovered(token, hostnames)]
    if good:
        return Found(token=good[0], certain=len(good) == 1)
    names = [str(hostname) for hostname in hostnames]
    what = f"all of {', '.join(names)}" if len(names) > 1 else names[0]
    raise InvalidRequest([f"no token covers {what}: mint one with `responder token mint {' '.join(names)}`"])


def _token_id(key: TsigKey) -> UUID:
    try:
        return UUID(key.name.rstrip(".").rpartition("-")[0])
    except ValueError:
        raise InvalidRequest(
            [f"the key {key.name} was not made by this service: see responder token mint --format tsig"]
        ) from None


def _uncovered(token: Token, hostnames: Iterable[Name]) -> list[str]:
    covered = {grant.hostname for grant in token.grants}
    return [str(hostname) for hostname in hostnames if hostname not in covered]


def _solver(settings: Settings, options: ManifestOptions, found: Found, credential: Given) -> SolverConfig:
    if options.solver is Kind.ACME_DNS and not found.certain:
        raise InvalidRequest(
            ["several tokens cover the hostnames, and each is another acme-dns account: choose one with --token-file"]
        )
    pinned = found.certain and found.token.account_thumbprint is not None
    if pinned and options.solver is not Kind.WEBHOOK:
        raise InvalidRequest(
            [f"the token is pinned to an ACME account, but {options.solver.value} cannot show it: use --solver webhook"]
        )
    url = "" if options.solver is Kind.RFC2136 else _url(settings, options)
    if pinned and options.cluster_issuer:
        raise InvalidRequest(
            ["the token is pinned to an ACME account, which needs an Issuer: leave out --cluster-issuer"]
        )
    token = credential if isinstance(credential, str) else manifests.NO_TOKEN
    match options.solver:
        case Kind.WEBHOOK:
            return WebhookConfig(
                url=url,
                token=token,
                ca_bundle=_certificates(options.ca_file, "--ca-file"),
                group=options.webhook_group,
                solver=options.webhook_solver,
                service_account=ServiceAccount(namespace=options.webhook_namespace, name=options.webhook_account),
                pinned=pinned,
            )
        case Kind.ACME_DNS:
            return AcmeDnsConfig(url=url, credential=Credential(token=found.token, secret=token, url=url))
        case Kind.RFC2136:
            servers = {zone.name: options.nameserver or f"{next(iter(zone.nameservers))}:53" for zone in settings.zones}
            name = tsig_key_name(found.token) if found.certain else manifests.NO_KEY_NAME
            unknown = TsigKey(name=name, secret=manifests.NO_KEY_SECRET)
            return Rfc2136Config(nameservers=servers, key=credential if isinstance(credential, TsigKey) else unknown)
        case _:
            assert_never(options.solver)


def _url(settings: Settings, options: ManifestOptions) -> str:
    url = options.url or settings.api.url
    if options.solver is Kind.WEBHOOK and _is_plain(url) and not is_service(_host(url)):
        raise InvalidRequest(
            [
                f"the webhook does not send the token unencrypted to {url}: use an https URL, or http://NAME.NAMESPACE.svc"
            ]
        )
    if not url:
        raise InvalidRequest(
            [f"--solver {options.solver.value} needs the URL of the API: give it with --url, or set api.url"]
        )
    return url


def _certificates(path: Path | None, option: str) -> str | None:
    return read_certificates(path, option) if path is not None else None


def _is_in_the_clear(url: str) -> bool:
    """Whether *url* is plain HTTP to a host outside the cluster and outside the pod of the client."""
    return _is_plain(url) and not is_service(_host(url)) and not is_loopback(_host(url))


def _is_plain(url: str) -> bool:
    return urlsplit(url).scheme == "http"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
