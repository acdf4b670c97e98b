"""Credentials as text: the shapes that clients expect, read by real ones where there are any that need no CA."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

import dns.message
import dns.rdatatype
import dns.tsig
import pytest
import yaml

from responder.errors import Invalid, NotServed
from responder.names import Name
from responder.tokens import credentials
from responder.tokens.credentials import Credential, Format
from responder.tokens.hostname import challenge_name
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token, tsig_key_name
from tests.e2e.programs import require
from tests.support.processes import PATIENCE
from tests.support.stores import NOW

APEX = Name.parse("acme.example.com")
SERVING = Serving(apexes=frozenset([APEX]))
ID = UUID("8e5700ea-a4bf-41c7-8a77-e990661dcc6a")
SECRET = "rsp_" + "s" * 43
URL = "https://responder.example.com"
TSIG_SECRET = bytes(range(32))
HOSTS = ("some.example.com", "other.org")
THUMBPRINT = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"


def grant(text: str, *, alias: str | None = None, apex: Name = APEX) -> Grant:
    """The usual grant for a hostname, or one with another challenge name."""
    hostname = Name.parse(text)
    name = Name.parse(alias) if alias else challenge_name(hostname, apex)
    return Grant(hostname=hostname, challenge_name=name, apex=apex)


def account(label: str) -> Grant:
    """An account that names no host."""
    return grant(f"{label}.acme.example.com", alias=f"{label}.acme.example.com")


def credential(*grants: Grant, pinned: bool = False, url: str = URL) -> Credential:
    """A token with these grants, its secret, and all that goes with it."""
    token = Token(
        id=ID,
        description=None,
        grants=grants or tuple(map(grant, HOSTS)),
        created_at=NOW,
        allow_from=(ip_network("192.0.2.0/24"),),
        account_thumbprint=THUMBPRINT if pinned else None,
        generation=3,
    )
    return Credential(token=token, secret=SECRET, url=url, tsig_secret=TSIG_SECRET)


def test_acme_dns() -> None:
    """For each hostname one line, in the members and the order of acme-dns's answer to a registration."""
    text = credentials.render(Format.ACME_DNS, credential())

    assert [
        f'{{"username":"{ID}","password":"{SECRET}","fulldomain":"{subdomain}.acme.example.com",'
        f'"subdomain":"{subdomain}","allowfrom":["192.0.2.0/24"]}}'
        for subdomain in ("_acme-challenge.some", "_acme-challenge.other.org")
    ] == text.splitlines()


def test_lego() -> None:
    """One object, by hostname, with what goacmedns reads; an account that names no host is left out."""
    accounts = json.loads(credentials.render(Format.LEGO, credential(grant("some.example.com"), account("x"))))

    assert {
        "some.example.com": {
            "fulldomain": "_acme-challenge.some.acme.example.com",
            "subdomain": "_acme-challenge.some",
            "username": str(ID),
            "password": SECRET,
            "server_url": URL,
        }
    } == accounts


def test_subdomain_is_below_the_right_zone() -> None:
    """Of several zones the one that the challenge name is in counts; an alias may be anything in it."""
    several = Credential(
        token=credential(
            grant("some.example.com", alias="a.b.acme.example.net", apex=Name.parse("acme.example.net"))
        ).token,
        secret=SECRET,
    )

    assert "a.b" == json.loads(credentials.acme_dns(several))["subdomain"]
    assert "" == credentials.lego_accounts(several, several.token.grants)["some.example.com"]["server_url"]


def test_kubernetes() -> None:
    """A Secret with the token and the storage file; its comments name the records that have to be there."""
    text = credentials.render(Format.KUBERNETES, credential())
    (secret,) = yaml.safe_load_all(text)

    assert ("v1", "Secret", "Opaque") == (secret["apiVersion"], secret["kind"], secret["type"])
    assert {"name": "some.example.com-responder"} == secret["metadata"]
    assert {"token", "acmedns.json"} == secret["stringData"].keys()
    assert SECRET == secret["stringData"]["token"]
    assert json.loads(credentials.lego(credential())) == json.loads(secret["stringData"]["acmedns.json"])
    for host in HOSTS:
        assert f"#   {grant(host).cname}\n" in text


@pytest.mark.parametrize(
    ("made", "comment"),
    [(credential(pinned=True), "acmeDNS"), (credential(account("x")), "must have")],
    ids=["pinned", "account"],
)
def test_kubernetes_without_accounts(made: Credential, comment: str) -> None:
    """A pinned token is of no use to cert-manager's acmeDNS, and an account without a host is for none of its names."""
    text = credentials.render(Format.KUBERNETES, made)
    (secret,) = yaml.safe_load_all(text)

    assert {"token": SECRET} == secret["stringData"]
    assert comment not in text


def test_kubectl_reads_the_secret(tmp_path: Path) -> None:
    """kubectl reads it, and finds all keys."""
    file = tmp_path / "secret.yaml"
    file.write_text(credentials.render(Format.KUBERNETES, credential()))
    command = [require("kubectl"), "label", "--local", "-f", str(file), "read=yes", "-o", "json"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    secret = json.loads(done.stdout)
    assert ("Secret", {"read": "yes"}) == (secret["kind"], secret["metadata"]["labels"])
    assert SECRET == secret["stringData"]["token"]


def test_text_that_go_takes_for_something_else() -> None:
    """kubectl reads text as text, though its YAML knows more numbers and booleans than PyYAML does."""
    texts = ("1e3", "12e5", "5e-1", "+1e3", "0o17", "y", "N", "on", "123", "192.0.2.1", "~")

    for text in texts:
        _, line = credentials.to_yaml([{"key": text}]).splitlines()
        assert line in (f"key: '{text}'", f'key: "{text}"')
        assert {"key": text} == yaml.safe_load(line)


@pytest.mark.parametrize("length", [52, 53, 240])
def test_object_names(length: int) -> None:
    """Names of objects are hostnames as far as those are short enough; longer ones stay different."""
    long, other = (Name.parse(f"{first}{'y' * ((length - 5) % 4)}{'.yyy' * ((length - 5) // 4)}.zzz") for first in "ab")

    assert length == len(str(long))
    assert (length <= 52) == (str(long) == credentials.object_name(long))
    assert len(credentials.object_name(long)) <= 52
    assert credentials.object_name(long)[1:] != credentials.object_name(other)[1:] or length <= 52


def test_tsig_key_file_is_one_of_bind(tmp_path: Path) -> None:
    """BIND reads the key file as a piece of its configuration."""
    file = tmp_path / "key"
    file.write_text(credentials.render(Format.TSIG, credential()))

    done = subprocess.run([require("named-checkconf"), str(file)], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    assert f'key "{ID}-3" {{\n\talgorithm hmac-sha256;\n\tsecret "' in file.read_text()


def nsupdate(file: Path) -> list[str]:
    """nsupdate takes the file as it is."""
    return [require("nsupdate"), "-k", str(file), "-t", "1", "-r", "0"]


def knsupdate(file: Path) -> list[str]:
    """knsupdate takes the line that is in its comments."""
    (line,) = [line[2:] for line in file.read_text().splitlines() if line.startswith("# hmac-sha256:")]
    knot = file.with_suffix(".knot")
    knot.write_text(line)
    return [require("knsupdate"), "-k", str(knot), "-t", "1", "-r", "0"]


@pytest.mark.parametrize("client", [nsupdate, knsupdate])
def test_clients_sign_updates_with_the_key(client: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """What the clients sign with the key file verifies with the secret that the file was made of."""
    file = tmp_path / "tsig.key"
    file.write_text(credentials.render(Format.TSIG, credential()))
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        host, port = server.getsockname()
        commands = f"server {host} {port}\nzone {APEX}\nupdate add x.{APEX}. 60 TXT hello\nsend\n"
        with subprocess.Popen(client(file), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            process.stdin.write(commands.encode())
            process.stdin.close()
            packet, _ = server.recvfrom(4096)
            process.kill()

    key = dns.tsig.Key(f"{ID}-3", TSIG_SECRET, "hmac-sha256")
    message = dns.message.from_wire(packet, keyring={key.name: key})

    assert message.had_tsig
    assert dns.rdatatype.SOA == message.sections[0][0].rdtype


def test_secret_of_the_key_is_in_base64() -> None:
    """As everybody writes it who has one."""
    assert f'"{base64.b64encode(TSIG_SECRET).decode()}"' in credentials.tsig(credential())
    assert f"{ID}-3" == tsig_key_name(credential().token)


@pytest.mark.parametrize("wanted", [Format.ACME_DNS, Format.LEGO, Format.TSIG])
def test_pinned_token(wanted: Format) -> None:
    """A pinned token is not handed out for a route where it would be refused; the text says which to use."""
    with pytest.raises(Invalid, match=r"cannot carry the ACME token.*POST /present.*the webhook"):
        credentials.check(wanted, [grant("some.example.com")], pinned=True, serving=SERVING)

    credentials.check(Format.KUBERNETES, [grant("some.example.com")], pinned=True, serving=SERVING)
    credentials.check(wanted, [grant("some.example.com")], pinned=False, serving=SERVING)


@pytest.mark.parametrize("wanted", list(Format))
def test_nothing_to_render(wanted: Format) -> None:
    """A token without any hostname, and names without their zone, are refused before anything is made."""
    with pytest.raises(Invalid, match="no hostname left"):
        credentials.check(wanted, [], pinned=False, serving=SERVING)
    if wanted is not Format.TSIG:
        with pytest.raises(NotServed, match=r"is in the zone acme\.example\.com, which is not served here"):
            credentials.check(
                wanted,
                [grant("some.example.com")],
                pinned=False,
                serving=Serving(apexes=frozenset([Name.parse("example.net")])),
            )


def test_account_without_a_host() -> None:
    """lego's file is by hostname, which an imported account has none of; acme-dns's answer needs none."""
    with pytest.raises(Invalid, match="names no hostname"):
        credentials.check(Format.LEGO, [account("x")], pinned=False, serving=SERVING)

    credentials.check(Format.LEGO, [account("x"), grant("some.example.com")], pinned=False, serving=SERVING)
    credentials.check(Format.ACME_DNS, [account("x")], pinned=False, serving=SERVING)


def test_secrets_do_not_show() -> None:
    """The representation of a credential, as a traceback has it, holds no secret."""
    assert SECRET not in repr(credential())
    assert repr(TSIG_SECRET) not in repr(credential())
