"""
Renders a token with its secret as a file for the programs that use it, or as a Secret of Kubernetes.

Pure: the caller provides the token and writes the text. The formats are those of acme-dns (its response to a
registration), of goacmedns (the storage file of lego, Traefik and cert-manager), and of BIND (a key file).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, assert_never

import yaml

from responder.errors import Invalid
from responder.names import Name
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token, tsig_key_name

TSIG_ALGORITHM = "hmac-sha256"
"""Every client that signs updates supports it (RFC 8945, section 6)."""

MAX_OBJECT_NAME = 52
"""Characters of the name of a Kubernetes object. cert-manager cuts longer names when it derives names from them."""

Object = dict[str, Any]


class Format(Enum):
    """The formats that a credential can be rendered in."""

    ACME_DNS = "acme-dns"
    LEGO = "lego"
    TSIG = "tsig"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """
    A *token* with its *secret*, and with the secret of its TSIG key if that is needed.

    *url* is the URL of the API for clients, or "" if it is unknown.
    """

    token: Token
    secret: str = field(repr=False)
    url: str = ""
    tsig_secret: bytes = field(default=b"", repr=False)


def check(wanted: Format, grants: Iterable[Grant], *, pinned: bool, serving: Serving) -> None:
    """
    Check that a token with *grants* can be rendered as *wanted*, before its secret is made.

    Raises `Invalid` or `NotServed`.
    """
    granted = list(grants)
    if not granted:
        raise Invalid("this token has no hostname left: allow it one first, with responder token allow")
    if pinned and wanted is not Format.KUBERNETES:
        raise Invalid(
            f"--format {wanted.value} is for a route that cannot carry the ACME token, which a token that is pinned to "
            "an account has to show: use POST /present (httpreq in RAW mode, or with acme_token) or the webhook, with "
            "--format text, json or kubernetes"
        )
    if wanted is Format.LEGO and not any(grant.names_a_host for grant in granted):
        raise Invalid(
            "this is an account that names no hostname, and --format lego is a file by hostname: use --format acme-dns"
        )
    for grant in granted:
        grant.check_served(serving)


def render(wanted: Format, credential: Credential) -> str:
    """The text of a file. Call `check` first."""
    match wanted:
        case Format.ACME_DNS:
            return acme_dns(credential)
        case Format.LEGO:
            return lego(credential)
        case Format.TSIG:
            return tsig(credential)
        case Format.KUBERNETES:
            return kubernetes(credential)
        case _:
            assert_never(wanted)


def acme_dns(credential: Credential) -> str:
    """The response of acme-dns to a registration: a line for each challenge name, as a client reads one account."""
    networks = [str(network) for network in credential.token.allow_from]
    lines = (
        json.dumps(_account(credential, grant) | {"allowfrom": networks}, separators=(",", ":")) + "\n"
        for grant in credential.token.grants
    )
    return "".join(dict.fromkeys(lines))


def lego(credential: Credential) -> str:
    """
    The storage file of lego: the accounts of all hostnames, by hostname without `*.`.

    Traefik, cert-manager (in a Secret), Caddy, acme-dns-client and certbot-dns-acmedns read the same file.
    """
    return json.dumps(lego_accounts(credential, credential.token.grants), indent=2) + "\n"


def lego_accounts(credential: Credential, grants: Iterable[Grant]) -> dict[str, dict[str, str]]:
    """The accounts in that file for *grants*, without grants that have no hostname."""
    server = {"server_url": credential.url}
    return {str(grant.hostname): _account(credential, grant) | server for grant in grants if grant.names_a_host}


def tsig(credential: Credential) -> str:
    """A key file of BIND, for `nsupdate -k`. A comment in it has the format that `knsupdate -k` needs."""
    name, secret = tsig_key_name(credential.token), base64.b64encode(credential.tsig_secret).decode()
    return _comment(
        f"The key of token {credential.token.id} for DNS updates (RFC 2136) of TXT records at",
        *dict.fromkeys(f"  {grant.challenge_name.fqdn}" for grant in credential.token.grants),
        "",
        "nsupdate -k THIS_FILE reads it as it is. knsupdate -k reads a file with this line alone:",
        f"{TSIG_ALGORITHM}:{name}:{secret}",
    ) + (f'key "{name}" {{\n\talgorithm {TSIG_ALGORITHM};\n\tsecret "{secret}";\n}};\n')


def kubernetes(credential: Credential) -> str:
    """A Secret with the token for the webhook and, unless the token is pinned, the storage file for `acmeDNS`."""
    grants = credential.token.grants
    data = secret_data(credential, grants)
    needed = [f"  {each}" for each in needs(grants)]
    return to_yaml(
        [secret(secret_name(grants[0].hostname), data)],
        comment=[
            f"The credential of token {credential.token.id} for cert-manager, in the namespace of its Issuer:",
            *(f"  {key.ljust(max(map(len, data)))}  {_SECRET_KEYS[key]}" for key in data),
            *(["The DNS of the hostname needs:", *needed] if needed else []),
            "It holds a secret: pipe it to kubectl rather than keeping it in a file.",
        ],
    )


def needs(grants: Iterable[Grant]) -> list[str]:
    """What the DNS outside our zones needs for *grants*."""
    return list(dict.fromkeys(grant.needs for grant in grants if grant.cname is not None or grant.is_delegated))


_SECRET_KEYS = {
    "token": "for the webhook, as tokenSecretRef",
    "acmedns.json": "for cert-manager's own acmeDNS, as accountSecretRef",
}


def secret_data(credential: Credential, grants: Sequence[Grant]) -> dict[str, str]:
    """The data of a Secret with a credential, for *grants* of its token."""
    data = {"token": credential.secret}
    accounts = lego_accounts(credential, grants)
    if accounts and credential.token.account_thumbprint is None:
        data["acmedns.json"] = json.dumps(accounts, indent=2) + "\n"
    return data


def secret(name: str, data: dict[str, str], *, namespace: str | None = None) -> Object:
    """A Secret. Without *namespace*, the namespace is the one of `kubectl -n`."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace is not None else {})
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": data}


def secret_name(hostname: Name) -> str:
    """The name of the Secret for *hostname*."""
    return f"{object_name(hostname)}-responder"


def object_name(hostname: Name) -> str:
    """The name for objects of *hostname*: the hostname, or its beginning and a digest if it is too long."""
    text = str(hostname)
    if len(text) <= MAX_OBJECT_NAME:
        return text
    digest = base64.b32encode(hashlib.sha256(hostname.wire).digest())[:8].decode().lower()
    return f"{text[: MAX_OBJECT_NAME - 9].rstrip('.-')}-{digest}"


def to_yaml(objects: Iterable[Object], *, comment: Iterable[str] = ()) -> str:
    """One YAML document for each of *objects*, after lines of *comment*."""
    documents = (yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=120) for each in objects)
    return _comment(*comment) + "".join(f"---\n{document}" for document in documents)


def _account(credential: Credential, grant: Grant) -> dict[str, str]:
    """
    The account for *grant*, with its members in the order of acme-dns. The subdomain is relative to the zone, except
    for the apex itself, where it is the whole name.
    """
    name = grant.challenge_name
    return {
        "username": str(credential.token.id),
        "password": credential.secret,
        "fulldomain": str(name),
        "subdomain": str(name if name == grant.apex else Name.from_labels(name.relative_to(grant.apex))),
    }


def _comment(*lines: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


class _Dumper(yaml.SafeDumper):
    """Writes readable YAML: texts of several lines as blocks, lists indented, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002  # PyYAML's
        return super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Quote more texts than PyYAML: kubectl's YAML has more numbers (1e3, 0o17) and booleans (y, n)."""
    style = "|" if "\n" in text else "'" if _AMBIGUOUS.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_AMBIGUOUS = re.compile(r"[-+.]?[0-9].*|[ynYN]")


_Dumper.add_representer(str, _represent_text)
