"""`responder token`: handing out secrets, giving tokens other ones, and changing what they may do."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from responder.certificate import accountkey
from responder.files.keyfile import read_key
from responder.tokens.secret import digest, tsig_secret
from tests.support.commands import CHALLENGE, HOST, VALUE, Run, bare, configuration, environment, fails, present, run
from tests.support.service import connect

__all__ = ["bare", "configuration", "environment", "run"]

THUMBPRINT = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"
URL = "https://responder.example.com"


@pytest.fixture
def minted(run: Run) -> dict[str, Any]:
    """A token for `some.example.com`, as JSON."""
    printed: dict[str, Any] = run("token", "mint", HOST, "--output", "json").json
    return printed


def secrets(directory: Path) -> dict[bytes, int | None]:
    """The digests in the database, and when they end."""
    with connect(directory) as database:
        return dict(database.execute("SELECT digest, expires_at FROM secrets"))


# Forms


def test_forms_that_clients_read(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each form alone is on stdout, fit for a pipe; what people want to know besides is on stderr."""
    monkeypatch.setenv("RESPONDER_API__URL", URL)

    def mint(form: str) -> str:
        done = run("token", "mint", HOST, "--format", form)
        assert re.search(r"^id [0-9a-f-]{36}\n", done.err, re.MULTILINE)
        assert f"\n_acme-challenge.some.example.com. 300 IN CNAME {CHALLENGE}.\n" in done.err
        return done.out

    account = json.loads(mint("acme-dns"))
    assert (CHALLENGE, "_acme-challenge.some", []) == tuple(
        account[member] for member in ("fulldomain", "subdomain", "allowfrom")
    )
    assert URL == json.loads(mint("lego"))[HOST]["server_url"]
    (secret,) = yaml.safe_load_all(mint("kubernetes"))
    assert secret["stringData"]["token"] == json.loads(secret["stringData"]["acmedns.json"])[HOST]["password"]
    assert digest(secret["stringData"]["token"]) in secrets(tmp_path)


def test_tsig_key(run: Run, tmp_path: Path) -> None:
    """The key is the one that the service computes from its key file, for this secret of the token."""
    text = run("token", "mint", HOST, "--format", "tsig").out
    (shown,) = run("token", "list", "--output", "json").json

    (name, secret) = re.findall(r'^key "(.*)" \{\n.*\n\tsecret "(.*)";', text, re.MULTILINE)[0]
    assert (f"{shown['id']}-1", shown["tsig_key_name"]) == (name, name)
    assert tsig_secret(read_key(tmp_path / "tsig.key"), name) == base64.b64decode(secret)

    again = run("token", "rotate", shown["id"], "--format", "tsig").out
    assert f'key "{shown["id"]}-2"' in again
    assert secret not in again


def test_tsig_key_of_a_server_that_takes_no_updates(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without DNS updates, or without a readable key file, no token is made for them."""
    command = ("token", "mint", HOST, "--format", "tsig")
    monkeypatch.setenv("RESPONDER_DNS__UPDATE__ENABLED", "false")
    assert "DNS updates are disabled" in fails(run, *command)
    monkeypatch.delenv("RESPONDER_DNS__UPDATE__ENABLED")
    monkeypatch.setenv("RESPONDER_DNS__UPDATE__KEY_FILE", str(tmp_path))
    assert "is a directory" in fails(run, *command)
    monkeypatch.delenv("RESPONDER_DNS__UPDATE__KEY_FILE")
    monkeypatch.setenv("RESPONDER_DATABASE__URL", "postgresql+asyncpg://me@nowhere.invalid/responder")
    assert "dns.update.key_file is not set" in fails(run, *command)
    monkeypatch.delenv("RESPONDER_DATABASE__URL")

    assert [] == run("token", "list", "--output", "json").json


def test_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--url goes before the setting; without either, the file says nothing, and a warning says so."""
    command = ("token", "mint", HOST, "--format", "lego")
    done = run(*command)
    assert "" == json.loads(done.out)[HOST]["server_url"]
    assert "responder: warning: server_url is empty in the output" in done.err

    monkeypatch.setenv("RESPONDER_API__URL", f"{URL}/")
    done = run(*command, "--url", "http://[::1]:8053/base/")
    assert "http://[::1]:8053/base" == json.loads(done.out)[HOST]["server_url"]
    assert "warning" not in done.err
    for wrong in ("responder.example.com", "ftp://x", "https://x:y@z", "https://", "https://a b", "https://x/?q"):
        assert "is not a URL such as" in run(*command, "--url", wrong, status=2).err


def test_pinned_tokens(run: Run, tmp_path: Path) -> None:
    """A token is pinned by thumbprint or key file, shows it everywhere, and has no form that is of no use to it."""
    key = tmp_path / "account.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    by_thumbprint = run("token", "mint", HOST, "--account-thumbprint", THUMBPRINT, "--output", "json").json
    by_key = run("token", "mint", HOST, "--account-key", str(key), "--format", "kubernetes")
    secret = yaml.safe_load(by_key.out)

    assert THUMBPRINT == by_thumbprint["account_thumbprint"]
    assert {"token"} == secret["stringData"].keys()
    pins = [token["account_thumbprint"] for token in run("token", "list", "--output", "json").json]
    assert {THUMBPRINT, accountkey.thumbprint(key)} == set(pins)
    assert f"pinned to    account {THUMBPRINT}\n" in run("token", "show", by_thumbprint["id"]).out
    assert ["yes", "yes"] == [line.split()[4] for line in run("token", "list", "--wide").out.splitlines()[1:]]
    assert f"account {THUMBPRINT}\n" in run("token", "rotate", by_thumbprint["id"]).out
    for form in ("acme-dns", "lego", "tsig"):
        for command in (["mint", HOST, "--account-thumbprint", THUMBPRINT], ["rotate", by_thumbprint["id"]]):
            fault = fails(run, "token", *command, "--format", form)
            assert fault.startswith(f"--format {form} is for a route that cannot carry the ACME token")
            assert "use POST /present" in fault
    assert 2 == len(run("token", "list", "--output", "json").json)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--account-thumbprint", THUMBPRINT[:-1]], "is not a thumbprint"),
        (["--account-thumbprint", f"{THUMBPRINT[:-1]}R"], "is not a thumbprint"),
        (["--account-thumbprint", f"{THUMBPRINT}="], "is not a thumbprint"),
        (["--account-thumbprint", THUMBPRINT, "--account-key", "x"], "use one of them"),
        (["--force"], "--force needs --out"),
        (["--format", "lego", "--output", "json"], "--format lego and --output json contradict each other"),
        (["--format", "json", "--output", "text"], "--format json and --output text contradict each other"),
        (["--format", "yaml"], "Invalid value for '--format'"),
    ],
)
def test_wrong_usage(run: Run, options: list[str], fault: str) -> None:
    """Options that say nothing, or that contradict each other, are wrong usage; nothing is minted."""
    assert fault in run("token", "mint", HOST, *options, status=2).err
    assert [] == run("token", "list", "--output", "json").json


def test_output_beside_a_format(run: Run) -> None:
    """What says the same twice does no harm."""
    for form in ("json", "text"):
        assert run("token", "mint", HOST, "--format", form, "--output", form).out


def test_account_key_that_is_none(run: Run, tmp_path: Path) -> None:
    """A file that holds no key is refused before anything is minted."""
    file = tmp_path / "key"
    file.write_text("x")
    assert "holds no key in PEM" in fails(run, "token", "mint", HOST, "--account-key", str(file))
    assert "no such file" in fails(run, "token", "mint", HOST, "--account-key", str(tmp_path / "none"))
    assert [] == run("token", "list", "--output", "json").json


# Files


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """A umask that hides nothing from anybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("form", ["text", "json", "acme-dns", "lego", "tsig", "kubernetes"])
@pytest.mark.usefixtures("loose_umask")
def test_file(run: Run, tmp_path: Path, form: str) -> None:
    """--out writes what would be printed, for nobody else to read; the secret is nowhere else."""
    file = tmp_path / "credential"

    done = run("token", "mint", HOST, "--format", form, "--out", str(file))

    assert "" == done.out
    assert f": writing to {file}\n" in done.err
    assert 0o600 == file.stat().st_mode & 0o7777
    assert ("hmac-sha256:" if form == "tsig" else "rsp_") in file.read_text()
    assert "rsp_" not in done.err
    assert {file, *tmp_path.glob("responder*"), *tmp_path.glob("tsig.key")} == set(tmp_path.iterdir())


def test_file_that_is_there(run: Run, tmp_path: Path) -> None:
    """A file that is there stays, and nothing is minted, unless --force replaces it, whoever may read the old one."""
    file, link = tmp_path / "credential", tmp_path / "link"
    file.write_text("precious")
    file.chmod(0o644)
    link.symlink_to(file)

    fault = fails(run, "token", "mint", HOST, "--out", str(file))
    assert f"--out {file}: the file exists: add --force to replace it" == fault
    for strange in (link, tmp_path):
        assert "is not a file" in fails(run, "token", "mint", HOST, "--out", str(strange), "--force")
    assert "precious" == file.read_text()
    assert [] == run("token", "list", "--output", "json").json

    run("token", "mint", HOST, "--out", str(file), "--force")
    assert "rsp_" in file.read_text()
    assert 0o600 == file.stat().st_mode & 0o7777


def test_file_that_cannot_be(run: Run, tmp_path: Path) -> None:
    """Where no file can be made, nothing is minted."""
    fault = fails(run, "token", "mint", HOST, "--out", str(tmp_path / "nowhere" / "credential"))

    assert fault.endswith("nowhere/credential: cannot be written: no such file or directory")
    assert "cannot be written" in fails(run, "token", "mint", HOST, "--out", "/proc/credential")
    assert [] == run("token", "list", "--output", "json").json


def test_file_that_somebody_else_made_meanwhile(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What appears between the look and the writing stays, too; the fault says what to do about the lost secret."""
    file = tmp_path / "credential"
    file.write_text("precious")
    monkeypatch.setattr("responder.cli.privatefile._check", lambda *_, **__: None)

    done = run("token", "mint", HOST, "--out", str(file), status=1)

    (minted,) = run("token", "list", "--output", "json").json
    assert f"id {minted['id']}: writing to" in done.err
    assert "cannot be written: file exists" in done.err
    assert "make another one with responder token rotate" in done.err
    assert "precious" == file.read_text()
    assert [] == list(tmp_path.glob(".*"))


def test_file_system_without_hard_links(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none; the file is written all the same."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    file = tmp_path / "credential"

    run("token", "mint", HOST, "--out", str(file))

    assert "rsp_" in file.read_text()
    assert [] == list(tmp_path.glob(".*"))


# rotate


def test_rotate(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """A new secret for the same token; the old one goes on for the grace and no longer."""
    before = datetime.now(UTC)
    rotated = run("token", "rotate", minted["id"], "--output", "json").json

    kept = secrets(tmp_path)
    assert minted | {"token": rotated["token"]} == rotated
    assert {digest(minted["token"]), digest(rotated["token"])} == kept.keys()
    assert kept[digest(rotated["token"])] is None
    ends = datetime.fromtimestamp(kept[digest(minted["token"])] or 0, UTC)
    assert before + timedelta(hours=24) <= ends <= datetime.now(UTC) + timedelta(hours=24, seconds=1)
    shown = run("token", "show", minted["id"]).out
    assert "generation   2\n" in shown
    assert f"TSIG key     {minted['id']}-2\n" in shown


def test_rotate_at_once(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """After a leak there is no grace."""
    out = run("token", "rotate", minted["id"], "--grace", "0").out

    assert "The old secret is no longer valid.\n" in out
    assert "until" not in out
    (secret,) = re.findall(r"^token +(rsp_\S{43})$", out, re.MULTILINE)
    assert {digest(secret)} == {key for key, ends in secrets(tmp_path).items() if ends is None}


def test_rotate_into_a_file(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """The very file that a client reads is replaced as a whole; until when the old secret is good is said."""
    file = tmp_path / "accounts.json"
    file.write_text("{}")

    done = run("token", "rotate", minted["id"][:8], "--format", "lego", "--url", URL, "--out", str(file), "--force")

    assert digest(json.loads(file.read_text())[HOST]["password"]) in secrets(tmp_path)
    assert re.search(r"^The old secret remains valid until .*Z at most\.$", done.err, re.MULTILINE)


def test_tokens_that_do_not_rotate(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """What is over stays over, and is told apart."""
    with connect(tmp_path) as database:
        database.execute("UPDATE tokens SET expires_at = 7")
    assert "has expired" in fails(run, "token", "rotate", minted["id"])
    run("token", "revoke", minted["id"])
    with connect(tmp_path) as database:
        database.execute("UPDATE tokens SET expires_at = NULL")
    assert "was revoked" in fails(run, "token", "rotate", minted["id"])
    assert 1 == len(secrets(tmp_path))


# Zones that have gone

GONE = (
    f"{CHALLENGE} is in the zone acme.example.com, which is not served here: change the configuration back, or "
    "remove the hostname from its tokens (token deny)"
)


@pytest.fixture
def zone_is_gone(minted: dict[str, Any], configuration: Path) -> None:
    """The token's zone is no longer in the configuration; another one is."""
    configuration.write_text(configuration.read_text().replace("acme.example.com", "dv.example.com"))


@pytest.mark.usefixtures("zone_is_gone")
def test_token_of_a_zone_that_has_gone(run: Run, minted: dict[str, Any]) -> None:
    """What it can no longer do is said wherever its hostnames are; a leaked secret can still be replaced."""
    shown = run("token", "show", minted["id"]).out
    rotated = run("token", "rotate", minted["id"]).out

    assert f"{HOST}: {GONE}" == shown.splitlines()[-1]
    assert f"{HOST}: {GONE}" == rotated.splitlines()[-1]
    for command in ("show", "rotate"):
        done = run("token", command, minted["id"], "--output", "json")
        assert done.err == f"responder: warning: {HOST}: {GONE}\n"
        assert done.json["id"] == minted["id"]


@pytest.mark.usefixtures("zone_is_gone")
@pytest.mark.parametrize("form", ["acme-dns", "lego", "tsig", "kubernetes"])
def test_forms_for_a_zone_that_has_gone(run: Run, tmp_path: Path, minted: dict[str, Any], form: str) -> None:
    """No client is given what cannot work, and the secret stays as it was."""
    before = secrets(tmp_path)

    assert fails(run, "token", "rotate", minted["id"], "--format", form) == GONE
    assert secrets(tmp_path) == before


@pytest.mark.usefixtures("zone_is_gone")
def test_hostname_of_a_zone_that_has_gone(run: Run, minted: dict[str, Any]) -> None:
    """It has a name in another zone only once nothing keeps the old one for it."""
    fault = (
        f"{HOST} already has the challenge name {CHALLENGE} in the zone acme.example.com: use --alias {CHALLENGE} if "
        "that zone is in the configuration, or first remove the hostname from its tokens (see responder token list, "
        "token deny)"
    )
    other = run("token", "mint", "b.example.com", "--output", "json").json["id"]

    assert fails(run, "token", "mint", HOST) == fault
    assert fails(run, "token", "allow", other, HOST) == fault
    run("token", "deny", minted["id"], HOST)
    assert "_acme-challenge.some.dv.example.com" in run("token", "mint", HOST).out


# allow, deny


def test_allow(run: Run, minted: dict[str, Any]) -> None:
    """More hostnames come with the CNAMEs that they need; what was granted stays."""
    out = run("token", "allow", minted["id"], "b.example.com", "*.b.example.com", "api.acme.example.com").out
    as_json = run("token", "allow", minted["id"], "c.example.com", "--alias", "c1.acme.example.com", "--output", "json")

    assert [
        f"the token with the id {minted['id']} now covers (effective within a second):",
        "api.acme.example.com: no CNAME needed, _acme-challenge.api.acme.example.com is in our zone",
        "b.example.com: its zone needs this record:",
        "_acme-challenge.b.example.com. 300 IN CNAME _acme-challenge.b.acme.example.com.",
        "some.example.com: its zone needs this record:",
        f"_acme-challenge.some.example.com. 300 IN CNAME {CHALLENGE}.",
    ] == out.splitlines()
    covered = {each["hostname"]: each["challenge_name"] for each in as_json.json["hostnames"]}
    assert "c1.acme.example.com" == covered["c.example.com"]
    assert as_json.json == run("token", "show", minted["id"], "--output", "json").json


def test_hosts_that_cannot_be_allowed(run: Run, minted: dict[str, Any]) -> None:
    """Faulty hostnames are all reported, and none is allowed; nor is one whose name somebody else has."""
    done = run("token", "allow", minted["id"], "b.example.com", "com", "x.onion", status=1)
    assert 2 == len(done.err.splitlines())
    run("token", "mint", "c.example.com", "--alias", "x.acme.example.com")
    assert "belongs to c.example.com" in fails(
        run, "token", "allow", minted["id"], "b.example.com", "--alias", "x.acme.example.com"
    )
    assert 1 == len(run("token", "show", minted["id"], "--output", "json").json["hostnames"])


def test_deny(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """Hostnames are taken away, with the values that the token has set there."""
    run("token", "allow", minted["id"], "b.example.com")
    present(tmp_path, minted["id"], VALUE, lifetime=timedelta(hours=1))

    out = run("token", "deny", minted["id"], f"*.{HOST}").out

    assert HOST not in out
    assert "b.example.com: " in out
    assert [] == run("value", "list", "--output", "json").json
    assert "no hostname\n" in run("token", "deny", minted["id"][:13], "b.example.com").out
    assert [] == run("token", "show", minted["id"], "--output", "json").json["hostnames"]
    assert "no hostname left" in fails(run, "token", "rotate", minted["id"], "--format", "lego")


def test_hosts_that_cannot_be_denied(run: Run, minted: dict[str, Any]) -> None:
    """A token that lacks one of the hostnames keeps all."""
    fault = fails(run, "token", "deny", minted["id"], HOST, "com")
    assert "the token has no grant for com: see responder token show" == fault
    assert [] == run("token", "deny", minted["id"], HOST, "--output", "json").json["hostnames"]


def test_allow_and_deny_what_is_over(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """Nothing is allowed to a token that is over; one that has expired gives back the names that it still keeps."""
    run("token", "allow", minted["id"], "b.example.com")
    with connect(tmp_path) as database:
        database.execute("UPDATE tokens SET expires_at = 7")
    fault = "the token has expired, and cannot get hostnames: mint another one"
    assert fails(run, "token", "allow", minted["id"], "c.example.com") == fault
    denied = run("token", "deny", minted["id"], HOST).out
    assert denied.splitlines()[0] == f"the token with the id {minted['id']} has expired; it still covers:"
    run("token", "mint", HOST, "--alias", "x.acme.example.com")
    run("token", "revoke", minted["id"])
    for command in ("allow", "deny"):
        assert "was revoked, which cannot be undone" in fails(run, "token", command, minted["id"], "b.example.com")


# Ids


def test_beginning_of_an_id(run: Run, tmp_path: Path, minted: dict[str, Any]) -> None:
    """Six characters of an id will do, in any case, unless another one begins so."""
    other = run("token", "mint", HOST, "--output", "json").json["id"]
    with connect(tmp_path) as database:
        for old, new in ((minted["id"], "ABCDEF01-2345-4678-9abc-def012345678"), (other, "abcdef02" + other[8:])):
            database.execute("PRAGMA foreign_keys = OFF")
            for table, column in (("tokens", "id"), ("secrets", "token_id"), ("grants", "token_id")):
                database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new.lower(), old))

    for written in ("ABCDEF01", "abcdef01-2345", "abcdef01234546789abcdef012345678"):
        assert "abcdef01-2345-4678-9abc-def012345678" == run("token", "show", written, "--output", "json").json["id"]
    assert "several tokens have an id that begins with this text: write more of the id" == fails(
        run, "token", "show", "abcdef"
    )
    assert {"revoked": "abcdef01-2345-4678-9abc-def012345678"} == run(
        "token", "revoke", "abcdef01", "--output", "json"
    ).json
