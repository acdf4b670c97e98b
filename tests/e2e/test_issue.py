"""`responder issue`: a certificate from a real CA through the running service, and every way in which there is none."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from responder.names import Name
from responder.tls.keypair import KeyPair
from tests.support.authorities import HTML, Answer, Front, fronting, problem
from tests.support.ports import free_port
from tests.support.processes import PATIENCE

from .dns_client import exists, values
from .pebble import Authority, issuing
from .programs import require, wait_until
from .service import Responder

pytestmark = pytest.mark.e2e

REFUSED_NONCES = 5
"""Per cent of good nonces that the CA refuses, as it comes. Of three million requests, one is refused too often."""

KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@pytest.fixture(scope="module")
def nervous_authority(tmp_path_factory: pytest.TempPathFactory, resolver: int) -> Iterator[Authority]:
    """A CA that loses nonces."""
    with issuing(tmp_path_factory.mktemp("nervous"), resolver, refused_nonces=REFUSED_NONCES) as authority:
        yield authority


@pytest.fixture
def front(nervous_authority: Authority, tmp_path: Path) -> Iterator[Front]:
    """The same CA, behind a server that may answer in its place."""
    directory_url = nervous_authority.directory_url
    with fronting(tmp_path, behind=directory_url, behind_ca_file=nervous_authority.tls) as front:
        yield front


def ca(authority: Authority | Front) -> tuple[str, ...]:
    trusted = authority.tls if isinstance(authority, Authority) else authority.ca_file
    return "--server", authority.directory_url, "--server-ca-file", str(trusted)


def fault(service: Responder, *arguments: str) -> str:
    """What a run that fails says last: one line, or several if the CA has much to say."""
    run = service.attempt("issue", *arguments)
    assert (1, "") == (run.returncode, run.stdout)
    return run.stderr[run.stderr.index("responder: ") :].removeprefix("responder: ").rstrip("\n")


def assert_nothing_left(service: Responder) -> None:
    """No value is in the DNS, and no token of the command is good any more."""
    tokens = json.loads(service.cli("token", "list", "--output", "json").stdout)
    ours = {token["id"] for token in tokens if token["description"] == "responder issue"}
    values = json.loads(service.cli("value", "list", "--output", "json").stdout)
    assert [] == [value for value in values if value["token_id"] in ours]
    assert {"revoked"} >= {token["state"] for token in tokens if token["description"] == "responder issue"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Certificates


def test_hostname_and_wildcard(service: Responder, nervous_authority: Authority, tmp_path: Path) -> None:
    """A certificate is obtained and written with its key; nothing else is left of it but the account's key."""
    command = (
        "issue",
        "some.example.com",
        "*.some.example.com",
        *ca(nervous_authority),
        "--out",
        str(tmp_path / "new"),
    )

    first = service.attempt(*command)
    again = service.attempt(*command, "--output", "json")

    assert (0, 0) == (first.returncode, again.returncode), first.stderr + again.stderr
    result = json.loads(again.stdout)
    certificate, key = Path(result["certificate_file"]), Path(result["private_key_file"])
    pair = KeyPair.parse(certificate.read_bytes(), key.read_bytes())
    assert all(pair.covers(Name.parse(name)) for name in ("some.example.com", "any.some.example.com"))
    root = tmp_path / "root.pem"
    root.write_text(nervous_authority.root())
    verify = [require("openssl"), "verify", "-CAfile", str(root), "-untrusted", str(certificate), str(certificate)]
    subprocess.run(verify, check=True, capture_output=True)
    account_key = service.directory / "acme-account.pem"
    assert (0o644, 0o600, 0o600) == (mode(certificate), mode(key), mode(account_key))
    assert "some.example.com: the value is being served at _acme-challenge.some.acme.example.com" in first.stderr
    assert "(existing)" in again.stderr
    assert "PRIVATE" not in first.stdout + first.stderr + again.stdout + again.stderr
    assert_nothing_left(service)


def test_hostname_that_has_a_token(service: Responder, nervous_authority: Authority) -> None:
    """A hostname that somebody was granted keeps its challenge name, before and after."""
    token = service.mint("mine.example.com")

    run = service.attempt("issue", "mine.example.com", *ca(nervous_authority))

    assert 0 == run.returncode, run.stderr
    assert run.stdout.startswith("hostnames         mine.example.com\nissuer            CN=Pebble Intermediate CA")
    assert exists(service.dns, token.challenge_name)
    assert 200 == service.introspect(token).status
    assert_nothing_left(service)


def test_dry_run(service: Responder, front: Front, tmp_path: Path) -> None:
    """A dry run proves the hostname to the CA, and has it issue nothing."""
    out = tmp_path / "out"

    run = service.attempt("issue", "yours.example.com", *ca(front), "--out", str(out), "--dry-run")

    assert (0, "hostnames         yours.example.com\n") == (run.returncode, run.stdout), run.stderr
    assert "yours.example.com: the CA has validated it" in run.stderr
    assert "no certificate was requested" in run.stderr
    assert 0 == front.asked("/finalize-order/")
    assert [] == list(out.iterdir())
    assert_nothing_left(service)


def test_account_with_a_binding(service: Responder, resolver: int, tmp_path: Path) -> None:
    """A CA that wants an external account binding gets it; without one, or with one that is not good, that is said."""
    key_file, wrong = tmp_path / "hmac", tmp_path / "wrong"
    key_file.write_text(f"{KEY}\n")
    wrong.write_text("c2VjcmV0" * 4)
    account = ("--account-key", str(tmp_path / "account.pem"))
    with issuing(tmp_path, resolver, refused_nonces=REFUSED_NONCES, binding_keys={"kid-1": KEY}) as authority:
        command = ("some.example.com", *ca(authority), *account)
        without = fault(service, *command)
        unknown = fault(service, *command, "--eab-kid", "expired", "--eab-key-file", str(key_file))
        forged = fault(service, *command, "--eab-kid", "kid-1", "--eab-key-file", str(wrong))
        bound = service.attempt("issue", *command, "--eab-kid", "kid-1", "--eab-key-file", str(key_file))
        later = service.attempt("issue", *command)

    assert f"the CA {authority.directory_url} wants an external account binding: give it the key identifier" in without
    assert "urn:ietf:params:acme:error:unauthorized: the field 'kid' references a key that is not known" in unknown
    assert "urn:ietf:params:acme:error:" in forged
    assert KEY not in without + unknown + forged
    assert (0, 0) == (bound.returncode, later.returncode), bound.stderr + later.stderr
    assert 0o600 == mode(tmp_path / "account.pem")


# None


def test_hostname_without_a_cname(service: Responder, nervous_authority: Authority) -> None:
    """What the CA found wrong is shown in its own words, with the record that may be missing; nothing is left."""
    said = fault(service, "nowhere.example.com", *ca(nervous_authority)).splitlines()

    assert said[0].startswith(
        f"the CA {nervous_authority.directory_url} (nowhere.example.com) reports: urn:ietf:params:acme"
    )
    assert said[1:] == [
        "Check that the DNS has this record:",
        "_acme-challenge.nowhere.example.com. 300 IN CNAME _acme-challenge.nowhere.acme.example.com.",
    ]
    assert_nothing_left(service)
    wait_until(lambda: not exists(service.dns, "_acme-challenge.nowhere.acme.example.com"), "the name is gone")


def test_authority_that_is_no_help(service: Responder, front: Front) -> None:
    """A CA that refuses, is ill, is none, or is not trusted: each in one line, and nothing is left."""
    quota = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "five already", "identifier": {"type": "dns"}}
    quota["identifier"] = {"type": "dns", "value": "some.example.com"}
    command, name = ("some.example.com", *ca(front)), front.directory_url

    front.override = lambda _, path: HTML if path == "/dir" else None
    ill = fault(service, *command)
    front.override = lambda _, path: Answer(200, {"hello": "world"}) if path == "/dir" else None
    none = fault(service, *command)
    front.override = lambda _, path: (
        problem(429, "rateLimited", "too many\x1b[31m of them", {"Retry-After": "60"}, subproblems=[quota])
        if path == "/order-plz"
        else None
    )
    refusing = fault(service, *command)
    distrusted = fault(service, *command[:-2])
    down = fault(service, "some.example.com", "--server", f"https://127.0.0.1:{free_port()}/dir")
    nowhere = fault(service, "some.example.com", "--server", "https://ca.invalid/dir")

    not_acme = "it responds, but not like an ACME CA: check that the URL is that of its ACME directory"
    assert (
        f"the CA {name}: it responds with status 502 and text/html, not like an ACME CA: check the URL, or wait" == ill
    )
    assert f"the CA {name}: {not_acme}" == none
    assert refusing == (
        f"the CA {name} reports: urn:ietf:params:acme:error:rateLimited: too many [31m of them; "
        "some.example.com: urn:ietf:params:acme:error:rateLimited: five already"
    )
    assert f"the CA {name}: its HTTPS certificate is not trusted here (" in distrusted
    assert "): for a private CA, give the file of its root" in distrusted
    assert "it cannot be reached (connection refused): check the URL, and whether it is running" in down
    assert "the name in its URL cannot be resolved: check the URL, and the resolver of this machine" in nowhere
    assert_nothing_left(service)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_interrupted(service: Responder, front: Front, tmp_path: Path, number: signal.Signals) -> None:
    """Ended while the CA dallies, the command takes everything back before it goes."""
    name = "_acme-challenge.some.acme.example.com"
    new_account = ("--account-key", str(tmp_path / "account.pem"))  # so that the CA has to look at the hostname
    front.dally_after("/chalZ/")
    with service.begin("issue", "some.example.com", *ca(front), *new_account) as process:
        wait_until(
            lambda: process.poll() is not None or (values(service.dns, name) and not front.hang.is_set()),
            "the CA was asked to look",
        )
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)

    assert 1 == process.returncode, said
    assert said.endswith("  revoked the token, and removed its values\nresponder: interrupted\n")
    assert set() == values(service.dns, name)
    assert_nothing_left(service)


def test_no_service(service: Responder, front: Front) -> None:
    """Without the service there is nothing to order for."""
    url = f"http://127.0.0.1:{free_port()}"

    said = fault(service, "some.example.com", *ca(front), "--url", url)

    assert f"the API at {url} cannot be used: connection refused: check that the service runs, and --url" == said
    assert 0 == front.asked("/order-plz")
    assert_nothing_left(service)
