"""
The commands of ACME clients in the documentation, run as they are written, but for addresses and secrets; and with the
files that the documentation has for them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gobuilt
from tests.support.places import ROOT

from .certbot import CERTBOT
from .dns_client import exists
from .lego import Certificate
from .pebble import Authority
from .programs import require, wait_until
from .service import Responder, Token

pytestmark = pytest.mark.e2e

HOSTNAME = "some.example.com"
"""Of the examples."""

_TIMEOUT = 120.0
"""Seconds for one client; it takes a few."""


def _examples() -> Iterator[tuple[str, str]]:
    """Each shell block with a whole command of lego or certbot, and a name for it."""
    for document in sorted((ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
        used = (block for block in blocks if re.search(r"^(lego run|certbot certonly) ", block, re.MULTILINE))
        yield from ((f"{document.stem}-{number}", block) for number, block in enumerate(used, 1))


EXAMPLES = dict(_examples())


def test_examples_are_found() -> None:
    """The documents have commands for lego by each of its three ways, and for certbot."""
    text = "".join(EXAMPLES.values())

    assert {"httpreq", "acme-dns", "rfc2136"} == set(re.findall(r"--dns (\S+)", text))
    assert "certbot certonly" in text
    assert not re.search(r"^lego (?!run)", text, re.MULTILINE), "the order of lego 4"


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(service: Responder, authority: Authority, resolver: int, tmp_path: Path, example: str) -> None:
    """The command obtains a certificate for the hostname and its wildcard."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lego").symlink_to(gobuilt.require("lego5"))
    (programs / "certbot").symlink_to(require(str(CERTBOT)))
    token = service.mint(HOSTNAME)
    for file, form in (("some.key", "tsig"), ("accounts.json", "lego")):
        if file in EXAMPLES[example]:
            options = ("--url", service.endpoint) if form == "lego" else ()
            service.cli("token", "mint", HOSTNAME, "--format", form, "--out", str(tmp_path / file), *options)
    wait_until(lambda: exists(service.dns, token.challenge_name), "the challenge name exists")

    _write_hook(service, token, tmp_path)

    run = subprocess.run(
        ["sh", "-eu", "-c", _filled_in(EXAMPLES[example], service, token, tmp_path)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
            **_for_lego(authority, resolver, tmp_path),
            **_for_certbot(authority, tmp_path),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    (certificate,) = (found for found in _obtained(tmp_path) if found.file.exists())
    certificate.verify(authority.root())
    assert {HOSTNAME, f"*.{HOSTNAME}"} == certificate.names()
    if "--dns acme-dns" not in EXAMPLES[example]:  # which has no cleanup
        assert token.challenge_name not in service.cli("value", "list").stdout


def _filled_in(block: str, service: Responder, token: Token, directory: Path) -> str:
    """The block with the places of this test, and with the token, for those of the example."""
    for pattern, text in (
        (r"https://responder\.example\.com", service.endpoint),
        (r"(?<=NAMESERVER=)responder\.example\.com", f"127.0.0.1:{service.dns}"),
        (r"(?<=machine )responder\.example\.com", "127.0.0.1"),
        (r"\bID\b", token.id),
        (r"rsp_…", token.secret),
        (r"/etc/letsencrypt(?=/)", str(directory)),
    ):
        block = re.sub(pattern, text, block)
    assert "responder.example.com" not in block
    return block


def _write_hook(service: Responder, token: Token, directory: Path) -> None:
    """The two files of certbot's manual hooks, as they are documented."""
    text = (ROOT / "docs" / "clients.md").read_text()
    (netrc,) = re.findall(r"^machine .*\n", text, re.MULTILINE)
    (script,) = re.findall(r"^```sh\n(#!/bin/sh\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name, content, mode in (("responder.netrc", netrc, 0o600), ("responder.sh", script, 0o755)):
        file = directory / name
        file.write_text(_filled_in(content, service, token, directory))
        file.chmod(mode)


def _for_lego(authority: Authority, resolver: int, directory: Path) -> dict[str, str]:
    """Its CA, its resolver, and that nameservers are not at port 53."""
    return {
        "LEGO_SERVER": authority.directory_url,
        "LEGO_CA_CERTIFICATES": str(authority.tls),
        "LEGO_PATH": str(directory / "lego"),
        "LEGO_DNS_RESOLVERS": f"127.0.0.1:{resolver}",
        "LEGO_DNS_PROPAGATION_DISABLE_ANS": "true",
        "RFC2136_SEQUENCE_INTERVAL": "1",
    }


def _for_certbot(authority: Authority, directory: Path) -> dict[str, str]:
    """Its CA, and where it keeps its files."""
    settings = {
        "server": authority.directory_url,
        "email": "hostmaster@example.com",
        "agree-tos": "true",
        "non-interactive": "true",
        "config-dir": directory / "config",
        "work-dir": directory / "work",
        "logs-dir": directory / "logs",
    }
    file = directory / "letsencrypt" / "cli.ini"
    file.parent.mkdir()
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    return {"XDG_CONFIG_HOME": str(directory), "REQUESTS_CA_BUNDLE": str(authority.tls)}


def _obtained(directory: Path) -> Iterator[Certificate]:
    certificates, live = directory / "lego" / "certificates", directory / "config" / "live" / HOSTNAME
    yield Certificate(certificates / f"{HOSTNAME}.crt", certificates / f"{HOSTNAME}.issuer.crt")
    yield Certificate(live / "cert.pem", live / "chain.pem")
