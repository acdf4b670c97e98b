"""
Clients that send DNS updates, unmodified: nsupdate and knsupdate by hand, dehydrated with the hook that we ship.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from responder.files.keyfile import read_key
from responder.tokens.secret import tsig_secret
from tests.support.nameservers import new_source
from tests.support.places import ROOT
from tests.support.processes import PATIENCE

from .lego import Certificate, Provider
from .pebble import Authority
from .programs import require
from .service import Responder, Token

HOOK = ROOT / "config" / "nsupdate-hook.sh"

_TIMEOUT = 90.0
"""Seconds for one run; it takes a few."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a token's holder signs updates with; *secret* in base64."""

    name: str
    secret: str

    def bind(self, directory: Path) -> Path:
        """A key file as BIND's programs read it."""
        file = directory / "bind.key"
        file.write_text(f'key "{self.name}" {{ algorithm hmac-sha256; secret "{self.secret}"; }};\n')
        return file

    def knot(self, directory: Path) -> Path:
        """A key file as Knot's programs read it."""
        file = directory / "knot.key"
        file.write_text(f"hmac-sha256:{self.name}:{self.secret}\n")
        return file


def key_of(service: Responder, token: Token) -> Key:
    """The key of a token that was never rotated."""
    name = f"{token.id}-1"
    secret = tsig_secret(read_key(service.directory / "tsig.key"), name)
    return Key(name, base64.b64encode(secret).decode())


def nsupdate(key: Path | None, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run nsupdate on a script of these *lines*."""
    return _run([require("nsupdate"), *options, *_with(key)], "\n".join(lines) + "\n")


def knsupdate(key: Path | None, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run knsupdate likewise."""
    return _run([require("knsupdate"), *options, *_with(key)], "\n".join(lines) + "\n")


def send_at_once(port: int, packets: Sequence[bytes], transport: str) -> list[bytes]:
    """The replies to *packets*, which are sent from a network of their own without waiting, by "UDP" or "TCP"."""
    kind = socket.SOCK_DGRAM if transport == "UDP" else socket.SOCK_STREAM
    with socket.socket(type=kind) as sock:
        sock.settimeout(PATIENCE)
        sock.bind((new_source(), 0))
        sock.connect(("127.0.0.1", port))
        if transport == "UDP":
            for packet in packets:
                sock.send(packet)
            return [sock.recv(4096) for _ in packets]
        sock.sendall(b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets))
        with sock.makefile("rb") as stream:
            return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in packets]


def rfc2136(service: Responder, key: Key) -> Provider:
    """lego's provider for DNS updates; it takes its names one after the other, with a pause that is short here."""
    return Provider(
        "rfc2136",
        {
            "RFC2136_NAMESERVER": f"127.0.0.1:{service.dns}",
            "RFC2136_TSIG_ALGORITHM": "hmac-sha256.",
            "RFC2136_TSIG_KEY": key.name,
            "RFC2136_TSIG_SECRET": key.secret,
            "RFC2136_SEQUENCE_INTERVAL": "1",
            "RFC2136_POLLING_INTERVAL": "1",
            "RFC2136_PROPAGATION_TIMEOUT": "10",
            "LEGO_EXPERIMENTAL_CNAME_SUPPORT": "true",  # Debian's version follows CNAMEs only if told to
        },
    )


def obtain_by_dehydrated(
    authority: Authority, resolver: int, service: Responder, key: Key, *names: str, directory: Path
) -> Certificate:
    """Obtain one certificate for all the names with dehydrated and our hook; fails with what dehydrated says."""
    (directory / "domains.txt").write_text(f"{' '.join(names)} > obtained\n")
    config = directory / "config"
    config.write_text(
        f"CA={authority.directory_url}\n"
        f"BASEDIR={directory}\n"
        f'CURL_OPTS="--cacert {authority.tls}"\n'
        f"CHALLENGETYPE=dns-01\n"
        f"HOOK={HOOK}\n"
        "KEY_ALGO=prime256v1\n"
    )
    environment = hook_environment(service, key, resolver, directory)
    dehydrated = [require("dehydrated"), "--config", str(config)]
    for arguments in (["--register", "--accept-terms"], ["--cron"]):
        run = _run([*dehydrated, *arguments], environment=environment)
        assert run.returncode == 0, run.stdout
    obtained = directory / "certs" / "obtained"
    return Certificate(obtained / "cert.pem", obtained / "chain.pem")


def hook_environment(service: Responder, key: Key, resolver: int, directory: Path) -> dict[str, str]:
    """What the hook that we ship needs to know."""
    require("nsupdate")
    return {
        "SERVER": f"127.0.0.1 {service.dns}",
        "KEY": str(key.bind(directory)),
        "DIG": f"{require('dig')} @127.0.0.1 -p {resolver}",
    }


def run_hook(environment: dict[str, str], *arguments: str) -> int:
    """Run the hook as an ACME client does; returns its exit status."""
    return _run([str(HOOK), *arguments], environment=environment).returncode


def _with(key: Path | None) -> list[str]:
    return ["-k", str(key)] if key is not None else []


def _run(
    arguments: list[str], script: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; all that it says is in *stdout*."""
    return subprocess.run(
        arguments,
        env={**os.environ, **(environment or {})},
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
