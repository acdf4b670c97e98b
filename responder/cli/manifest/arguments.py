"""The arguments of `responder manifest`, and the files that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from responder.cli.parameters import LABEL, Text, check_stdin
from responder.errors import Invalid, InvalidRequest
from responder.files import namedfile
from responder.tokens.credentials import MAX_OBJECT_NAME
from responder.tokens.manifests import Select, TsigKey

MAX_FILE = 65_536
"""Octets of a file that an option names. A bundle of CA certificates is the longest, and is much shorter."""

_KEY_FILE = re.compile(
    r'\s*key\s+"?(?P<name>[^"\s{]+)"?\s*\{'
    r'(?=[^}]*\balgorithm\s+"?hmac-(?P<algorithm>sha256|sha512)"?\s*;)'
    r'(?=[^}]*\bsecret\s+"(?P<secret>[A-Za-z0-9+/=]+)"\s*;)[^}]*\}\s*;\s*',
    re.IGNORECASE,
)
"""A key as BIND's tools and `token mint --format tsig` write it, with an algorithm that cert-manager supports."""


class Kind(Enum):
    """How cert-manager uses this service."""

    WEBHOOK = "webhook"
    ACME_DNS = "acme-dns"
    RFC2136 = "rfc2136"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """The options, by their names."""

    solver: Kind
    url: str | None
    token_file: Path | None
    namespace: str | None
    name: str | None
    server: str
    server_ca_file: Path | None
    email: str | None
    eab_kid: str | None
    eab_key_file: Path | None
    ca_file: Path | None
    nameserver: str | None
    select: Select
    cluster_issuer: bool
    cluster_namespace: str
    webhook_namespace: str
    webhook_account: str
    webhook_group: str
    webhook_solver: str

    def check(self) -> None:
        """Refuse options that contradict each other, as wrong usage."""
        rfc2136 = self.solver is Kind.RFC2136
        for wrong, text in (
            (rfc2136 and self.url is not None, "--solver rfc2136 does not use the API: leave out --url"),
            (not rfc2136 and self.nameserver is not None, "--nameserver is for --solver rfc2136"),
            (
                self.solver is not Kind.WEBHOOK and self.ca_file is not None,
                "--ca-file is for --solver webhook: the clients in cert-manager trust the CAs of its image",
            ),
            (self.eab_kid is None and self.eab_key_file is not None, "--eab-key-file needs --eab-kid"),
        ):
            if wrong:
                raise click.UsageError(text)
        check_stdin(self.token_file, self.eab_key_file, self.ca_file, self.server_ca_file)


NAME = Text(
    "name",
    rf"(?=.{{1,{MAX_OBJECT_NAME}}}$){LABEL}(\.{LABEL})*",
    f"a valid name for Kubernetes objects, of at most {MAX_OBJECT_NAME} characters",
)
NAMESPACE = Text("namespace", LABEL, "a valid name of a namespace")
WORD = Text("text", r"[!-~]+", "printable ASCII without spaces")
NAMESERVER = Text(
    "host[:port]",
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?",
    "HOST or HOST:PORT, an IPv6 address in brackets",
)


def read_text(path: Path, option: str) -> str:
    """The content of a text file or stdin, without surrounding white space. Raises `InvalidRequest`."""
    try:
        text = namedfile.read_text(path, MAX_FILE, pipes=True)
    except Invalid as fault:
        raise InvalidRequest([f"{option} {fault}"]) from None
    if not text.strip():
        raise InvalidRequest([f"{option} {path}: is empty"])
    return text.strip()


def read_tsig_key(path: Path, option: str) -> TsigKey:
    """The TSIG key in a file. Raises `InvalidRequest`."""
    key = _KEY_FILE.fullmatch(re.sub(r"^\s*(#|//).*$", "", read_text(path, option), flags=re.MULTILINE))
    if key is None:
        raise InvalidRequest(
            [f"{option} {path}: has no TSIG key for HMAC-SHA256 or HMAC-SHA512: see responder token mint --format tsig"]
        )
    return TsigKey(name=key["name"], secret=key["secret"], algorithm=f"HMAC{key['algorithm'].upper()}")


def read_certificates(path: Path, option: str) -> str:
    """The certificates of a PEM file, without anything else in it. Raises `InvalidRequest`."""
    try:
        certificates = load_pem_x509_certificates(read_text(path, option).encode())
    except ValueError:
        raise InvalidRequest([f"{option} {path}: has no certificate in PEM"]) from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)
