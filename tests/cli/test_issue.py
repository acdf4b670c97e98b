"""`responder issue`, as far as it comes without a CA: what it finds out before it asks one for anything."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from responder.certificate import accountkey
from responder.cli.commands import cli
from responder.cli.issue import _own_url
from responder.config import Settings, load
from responder.errors import Invalid, ResponderError
from responder.store import Store
from tests.support.authorities import HTML, Front, fronting
from tests.support.keypairs import key_pair
from tests.support.service import new_database, write_configuration

HOST = "some.example.com"

Issue = Callable[..., Result]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own configuration."""
    for name in [name for name in os.environ if name.startswith("RESPONDER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A CA that is of no use."""
    with fronting(tmp_path) as front:
        front.override = lambda _method, _path: HTML
        yield front


@pytest.fixture
def issue(tmp_path: Path, front: Front) -> Issue:
    """Runs the command for a host, on a database of its own."""
    new_database(tmp_path)
    configuration = str(write_configuration(tmp_path, api=10_080))

    def issue(*options: str, hosts: tuple[str, ...] = (HOST,)) -> Result:
        ca = ("--server", front.directory_url, "--server-ca-file", str(front.ca_file))
        return CliRunner().invoke(cli, ["--config", configuration, "issue", *hosts, *ca, *options])

    return issue


def fault(result: Result) -> str:
    assert "" == result.stdout
    assert isinstance(result.exception, ResponderError), result
    return str(result.exception)


def test_what_cannot_work(issue: Issue, front: Front, tmp_path: Path) -> None:
    """Everything that can be told beforehand is, and no CA hears of it."""
    file, none = tmp_path / "file", tmp_path / "none"
    file.write_text("no key")
    public = tmp_path / "public"
    public.write_text(json.dumps({"kty": "RSA", "n": "_" * 342, "e": "AQAB"}))
    expected = {
        ("--out", f"{file}/out"): f"cannot write in {file}/out: not a directory: choose another directory",
        ("--account-key", f"{file}/key"): f"cannot write {file}/key: not a directory",
        ("--account-key", str(file)): f"{file}: it holds no key in PEM and no JWK: name the file of the account key",
        ("--account-key", str(public)): f"{public}: this is a public key: name the file of the private key",
        ("--eab-kid", "x", "--eab-key", "%"): "the HMAC key of the external account binding is not base64url: copy it "
        "whole, as the CA shows it",
        (
            "--eab-kid",
            "x",
            "--eab-key-file",
            str(none),
        ): f"the HMAC key in {none}: cannot be read: no such file or directory",
        ("--server-ca-file", str(file)): f"the CA file {file} holds no certificate in PEM",
        ("--server-ca-file", str(none)): f"the CA file {none}: cannot be read: no such file or directory",
    }

    assert expected == {options: fault(issue(*options)) for options in expected}
    assert fault(issue(hosts=("com", "192.0.2.1"))) == (
        "'com' is a public suffix: a token for it would be a token for every name below it; "
        "'192.0.2.1' is an IP address: dns-01 validates names only (RFC 8738, section 7)"
    )
    assert [] == front.requests


@pytest.mark.parametrize(
    "options",
    [("--eab-kid", "x"), ("--eab-key", "x" * 16), ("--eab-kid", "x", "--eab-key", "x" * 16, "--eab-key-file", "file")],
)
def test_options_of_a_binding_that_do_not_go_together(issue: Issue, options: tuple[str, ...]) -> None:
    """That is wrong usage, as everywhere."""
    result = issue(*options)
    assert 2 == result.exit_code
    assert "Error: an external account needs --eab-kid, and one of --eab-key-file and --eab-key\n" in result.stderr


def test_key_of_a_binding_on_the_command_line(issue: Issue, tmp_path: Path) -> None:
    """A secret that others can see among the processes is warned of, and not repeated; one in a file is neither."""
    file, key = tmp_path / "eab", "c2VjcmV0c2VjcmV0"
    file.write_text(f"{key}\n")

    seen = issue("--eab-kid", "x", "--eab-key", key)
    kept = issue("--eab-kid", "x", "--eab-key-file", str(file))

    assert "warning: --eab-key: it is visible in the process list" in seen.stderr
    assert "warning" not in kept.stderr
    assert key not in seen.output + kept.output + fault(seen) + fault(kept)


@pytest.mark.parametrize(
    "option", [("--server", "letsencrpt"), ("--email", "nobody"), ("--server", "http://ca.example/dir")]
)
def test_wrong_usage(issue: Issue, option: tuple[str, str]) -> None:
    """What is no CA, or no address, is wrong usage."""
    result = issue(*option)

    assert 2 == result.exit_code
    assert "Usage:" in result.stderr
    assert option[1] in result.stderr


def test_no_directory(issue: Issue, tmp_path: Path) -> None:
    """Nobody is asked for a certificate by default."""
    result = CliRunner().invoke(cli, ["issue", HOST])

    assert 2 == result.exit_code
    assert "Missing option '--server'" in result.stderr


def test_former_names_of_options(issue: Issue, front: Front, tmp_path: Path) -> None:
    """Scripts that use the former names go on working; the help shows the new ones only."""
    former = ("--directory", front.directory_url, "--contact", "nobody", "--ca-file", "none")

    result = CliRunner().invoke(cli, ["issue", HOST, *former])
    help_text = CliRunner().invoke(cli, ["issue", "--help"]).output

    assert "Error: Invalid value for '--email': " in result.stderr
    assert [] == [name for name in ("--directory", "--contact", " --ca-file") if name in help_text]
    assert [] == [name for name in ("--server", "--email", "--server-ca-file") if name not in help_text]


def test_files_from_stdin(tmp_path: Path) -> None:
    """`-` is stdin for each file that is read, and for one of them at a time."""
    new_database(tmp_path)
    run = partial(CliRunner().invoke, cli, input="no key")
    command = ["--config", str(write_configuration(tmp_path)), "issue", HOST, "--server", "https://127.0.0.1:1/dir"]
    hint = "it holds no key in PEM and no JWK: name the file of the account key"

    assert f"-: {hint}" == fault(run([*command, "--account-key", "-"]))
    assert "is not base64url" in fault(run([*command, "--eab-kid", "x", "--eab-key-file", "-"]))
    assert f"-: {hint}" == fault(run(["thumbprint", "-"]))
    both = run([*command, "--account-key", "-", "--eab-kid", "x", "--eab-key-file", "-"])
    assert "only one of the files can be stdin" in both.stderr
    assert "is not TOML" in fault(run(["--config", "-", "config", "check"]))


def test_account_key(issue: Issue, front: Front, tmp_path: Path) -> None:
    """The key of the account is made once, beside the database, and is its owner's alone."""
    path = tmp_path / "acme-account.pem"
    first = issue()
    thumbprint = accountkey.thumbprint(path)
    second = issue()

    assert f"  made a key for the ACME account: {path}\n" == first.stderr
    assert "" == second.stderr
    assert thumbprint == accountkey.thumbprint(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert "status 502" in fault(first)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_account_key_that_root_makes(issue: Issue, tmp_path: Path) -> None:
    """It belongs to the owner of the directory, so the command can be run as either of them from then on."""
    os.chown(tmp_path, 65534, 65534)
    issue()
    assert 65534 == (tmp_path / "acme-account.pem").stat().st_uid


def test_account_key_of_another_client(issue: Issue, tmp_path: Path) -> None:
    """The key of an account that another client has made will do."""
    path = tmp_path / "key.pem"
    path.write_bytes(key_pair("x.example").key)

    assert "status 502" in fault(issue("--account-key", str(path)))


def test_no_token_without_a_ca(issue: Issue, tmp_path: Path) -> None:
    """A CA that is of no use is noticed before a token is minted."""
    fault(issue())

    async def tokens() -> int:
        store = await Store.open(f"sqlite+aiosqlite:///{tmp_path}/responder.db")
        try:
            return len(await store.tokens())
        finally:
            await store.close()

    assert 0 == asyncio.run(tokens())


def test_postgresql_has_no_directory(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database file there is no place for the account's key: it has to be named."""
    configuration = write_configuration(tmp_path)
    monkeypatch.setenv("RESPONDER_DATABASE__URL", "postgresql+asyncpg://u@/d")
    arguments = ["--config", str(configuration), "issue", HOST, "--server", front.directory_url]

    said = fault(CliRunner().invoke(cli, arguments))

    assert "PostgreSQL has no directory for the key of the ACME account: name a file with --account-key" == said


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        ('listen = ["0.0.0.0:8053"]', "http://127.0.0.1:8053"),
        ('listen = ["[::]:443"]\ntls = "acme"\nhostname = "ns1.acme.example.com"', "https://[::1]:443"),
        (
            'listen = ["192.0.2.1:443"]\ntls = "files"\ncertificate_file = "x"\nprivate_key_file = "x"',
            "https://192.0.2.1:443",
        ),
    ],
)
def test_where_the_api_is(tmp_path: Path, api: str, expected: str) -> None:
    """Without --url, the API is where the settings say, seen from this machine."""
    assert expected == _own_url(settings(tmp_path, api))


def test_where_the_api_is_if_nobody_knows(tmp_path: Path) -> None:
    """A port that the system chooses is not in the settings."""
    with pytest.raises(Invalid, match="give the URL of the API with --url"):
        _own_url(settings(tmp_path, 'listen = ["127.0.0.1:0"]'))


def test_where_the_api_takes_proxies_alone(tmp_path: Path) -> None:
    """A proxy on this machine connects for others: the command has to go through it, and another address need not."""
    api = 'listen = ["127.0.0.1:8053"]\nproxy_protocol = true\ntrusted_proxies = ["{}"]'
    with pytest.raises(Invalid, match="give the URL of the proxy with --url"):
        _own_url(settings(tmp_path, api.format("127.0.0.0/8")))
    assert "http://127.0.0.1:8053" == _own_url(settings(tmp_path, api.format("192.0.2.0/24")))


def settings(directory: Path, api: str) -> Settings:
    """The settings of the tests, with others for the API."""
    path = write_configuration(directory, api=10_080)
    path.write_text(path.read_text().replace('listen = ["127.0.0.1:10080"]', api))
    return load(path, {})
