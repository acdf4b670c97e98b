"""What `responder manifest` prints: read by people, by kubectl, by Kubernetes' and cert-manager's own schemas."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from responder.cli.commands import cli
from responder.config.api import DIRECTORIES
from responder.errors import ResponderError
from responder.names import Name
from responder.tokens import manifests
from responder.tokens.credentials import MAX_OBJECT_NAME
from responder.tokens.manifests import Host, ManifestPlan, Rfc2136Config, TsigKey
from responder.tokens.token import Grant
from tests.support import kubectl, schemas
from tests.support.service import connect, new_database, write_configuration

HOST = "some.example.com"
API = "https://responder.example.com"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command with a new database."""
    new_database(tmp_path)
    configuration = str(write_configuration(tmp_path, dns=10_053, api=10_080, admin=10_081))

    def run(*arguments: str, stdin: str = "", status: int = 0) -> Result:
        done = CliRunner().invoke(cli, ["--config", configuration, *arguments], input=stdin)
        assert status == done.exit_code, (done.output, done.exception)
        return done

    return run


@pytest.fixture
def minted(run: Run) -> dict[str, Any]:
    """A token for the hostname and another one."""
    return mint(run, HOST, "other.org")


def mint(run: Run, *hosts: str) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(run("token", "mint", *hosts, "--output", "json").stdout)
    return printed


def objects(done: Result) -> dict[str, Any]:
    """The objects of a manifest by kind; of several Secrets, the last."""
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


def fault(run: Run, *arguments: str, stdin: str = "") -> str:
    """Why a command is refused, without having printed anything."""
    done = run("manifest", *arguments, stdin=stdin, status=1)
    assert "" == done.stdout
    assert isinstance(done.exception, ResponderError)
    return str(done.exception)


# The webhook


def test_webhook(run: Run, minted: dict[str, Any]) -> None:
    """All for the webhook: the token, leave to read that one Secret, an Issuer for these names, a Certificate."""
    done = run(
        *("manifest", HOST, f"*.{HOST}", "--url", f"{API}/", "--namespace", "web", "--email", "me@example.com"),
        *("--token-file", "-"),
        stdin=f"{minted['token']}\n",
    )

    assert (
        f"""\
# Objects for cert-manager: a certificate for some.example.com, *.some.example.com.
# The DNS of the hostname needs:
#   _acme-challenge.some.example.com. 300 IN CNAME _acme-challenge.some.acme.example.com.
# It contains a secret: pipe it to kubectl instead of storing it in a file.
---
apiVersion: v1
kind: Secret
metadata:
  name: some.example.com-responder
  namespace: web
type: Opaque
stringData:
  token: {minted["token"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: some.example.com-responder
  namespace: web
rules:
  - apiGroups:
      - ''
    resources:
      - secrets
    resourceNames:
      - some.example.com-responder
    verbs:
      - get
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: some.example.com-responder
  namespace: web
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: some.example.com-responder
subjects:
  - kind: ServiceAccount
    namespace: responder
    name: responder-webhook
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: some.example.com
  namespace: web
spec:
  acme:
    server: https://acme-v02.api.letsencrypt.org/directory
    email: me@example.com
    privateKeySecretRef:
      name: some.example.com-account
    solvers:
      - selector:
          dnsNames:
            - some.example.com
            - '*.some.example.com'
        dns01:
          cnameStrategy: Follow
          webhook:
            groupName: acme.responder.dev
            solverName: responder
            config:
              url: https://responder.example.com
              tokenSecretRef:
                name: some.example.com-responder
                key: token
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: some.example.com
  namespace: web
spec:
  secretName: some.example.com-tls
  dnsNames:
    - some.example.com
    - '*.some.example.com'
  privateKey:
    algorithm: ECDSA
    size: 256
    rotationPolicy: Always
  issuerRef:
    group: cert-manager.io
    kind: Issuer
    name: some.example.com
"""
        == done.stdout
    )
    assert "" == done.stderr


def test_token_is_left_to_fill_in(run: Run, minted: dict[str, Any]) -> None:
    """Without a token file, what has to be filled in says so; the token itself is never an argument."""
    done = run("manifest", HOST, "--url", API)

    assert {"token": "REPLACE-ME-WITH-THE-TOKEN"} == objects(done)["Secret"]["stringData"]
    assert "# Replace each REPLACE-ME below; the text after it states what to put there.\n" in done.stdout
    assert "namespace: web" not in done.stdout
    assert not any("--token=" in line or "--token " in line for line in run("manifest", "--help").output.splitlines())


def test_webhook_elsewhere(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """The webhook's account, group and solver, and the API's CA: of a PEM file its certificates, never a key in it."""
    certificate, key = self_signed()
    (tmp_path / "ca.pem").write_text(f"# a note\n{key}{certificate}")
    done = run(
        *("manifest", HOST, "--url", API, "--ca-file", str(tmp_path / "ca.pem"), "--webhook-namespace", "system"),
        *("--webhook-account", "solver", "--webhook-group", "acme.example.org", "--webhook-solver", "mine"),
    )

    webhook = objects(done)["Issuer"]["spec"]["acme"]["solvers"][0]["dns01"]["webhook"]
    assert ("acme.example.org", "mine") == (webhook["groupName"], webhook["solverName"])
    assert certificate == webhook["config"]["caBundle"]
    assert [{"kind": "ServiceAccount", "namespace": "system", "name": "solver"}] == objects(done)["RoleBinding"][
        "subjects"
    ]


def test_pinned(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """
    A token that is pinned to an ACME account needs that account's key, which cert-manager must not make anew, and
    leave for the webhook to see Challenges. Clients that cannot show the account are refused it.
    """
    with connect(tmp_path) as database:
        database.execute("UPDATE tokens SET account_thumbprint = ?", ("A" * 43,))

    done = run("manifest", HOST, "--url", API)

    assert objects(done)["Issuer"]["spec"]["acme"]["disableAccountKeyGeneration"] is True
    assert {"apiGroups": ["acme.cert-manager.io"], "resources": ["challenges"], "verbs": ["list"]} in objects(done)[
        "Role"
    ]["rules"]
    assert "put its key into the Secret some.example.com-account, as tls.key" in done.stdout
    for solver in (("acme-dns", "--url", API), ("rfc2136",)):
        assert "use --solver webhook" in fault(run, HOST, "--solver", *solver)
    assert "leave out --cluster-issuer" in fault(run, HOST, "--url", API, "--cluster-issuer")


# acme-dns and rfc2136


def test_acme_dns(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """cert-manager's acme-dns client finds an account under each bare hostname: the token's id and the token."""
    (tmp_path / "token").write_text(minted["token"])
    arguments = ("--solver", "acme-dns", "--url", API, "--token-file", str(tmp_path / "token"))
    done = run("manifest", HOST, f"*.{HOST}", "other.org", *arguments)

    account = {"username": minted["id"], "password": minted["token"], "server_url": API}
    some, other = "_acme-challenge.some", "_acme-challenge.other.org"
    assert {
        HOST: account | {"subdomain": some, "fulldomain": f"{some}.acme.example.com"},
        "other.org": account | {"subdomain": other, "fulldomain": f"{other}.acme.example.com"},
    } == json.loads(objects(done)["Secret"]["stringData"]["acmedns.json"])
    (solver,) = objects(done)["Issuer"]["spec"]["acme"]["solvers"]
    assert {
        "selector": {"dnsNames": [HOST, f"*.{HOST}", "other.org", "*.other.org"]},
        "dns01": {
            "cnameStrategy": "Follow",
            "acmeDNS": {
                "host": API,
                "accountSecretRef": {"name": f"{HOST}-responder", "key": "acmedns.json"},
            },
        },
    } == solver
    assert "Role" not in objects(done)


def test_acme_dns_without_the_token(run: Run, minted: dict[str, Any]) -> None:
    """The one token that covers the hostname has a known id; of several, it has to be said which is meant."""
    arguments = (HOST, "--solver", "acme-dns", "--url", API)
    account = json.loads(objects(run("manifest", *arguments))["Secret"]["stringData"]["acmedns.json"])[HOST]
    mint(run, HOST)

    assert (minted["id"], "REPLACE-ME-WITH-THE-TOKEN") == (account["username"], account["password"])
    assert "several tokens cover the hostnames" in fault(run, *arguments)


def key_file(token_id: str, *, algorithm: str = "hmac-sha256") -> str:
    return (
        f'key "{token_id}-1" {{\n\talgorithm {algorithm};\n\tsecret "c2VjcmV0IG9mIDMyIG9jdGV0cywgYXMgaXQgaXM=";\n}};\n'
    )


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_rfc2136(run: Run, minted: dict[str, Any], algorithm: str) -> None:
    """cert-manager's rfc2136 client gets the key as base64 text, its algorithm, and the zone's first nameserver."""
    arguments = ("manifest", f"*.{HOST}", "--solver", "rfc2136", "--token-file", "-")
    done = run(*arguments, stdin=key_file(minted["id"], algorithm=f"hmac-{algorithm}"))

    assert {"tsig-secret": "c2VjcmV0IG9mIDMyIG9jdGV0cywgYXMgaXQgaXM="} == objects(done)["Secret"]["stringData"]
    (solver,) = objects(done)["Issuer"]["spec"]["acme"]["solvers"]
    assert {
        "nameserver": "ns1.acme.example.com:53",
        "protocol": "TCP",
        "tsigAlgorithm": f"HMAC{algorithm.upper()}",
        "tsigKeyName": f"{minted['id']}-1",
        "tsigSecretSecretRef": {"name": f"{HOST}-responder", "key": "tsig-secret"},
    } == solver["dns01"]["rfc2136"]
    assert "Follow" == solver["dns01"]["cnameStrategy"]
    assert [f"*.{HOST}"] == objects(done)["Certificate"]["spec"]["dnsNames"]


def test_rfc2136_with_the_key_as_it_is_minted(run: Run) -> None:
    """What `token mint --format tsig` prints is what --token-file takes, comments and all."""
    printed = run("token", "mint", HOST, "--format", "tsig").stdout
    done = run("manifest", HOST, "--solver", "rfc2136", "--token-file", "-", stdin=printed)

    rfc2136 = objects(done)["Issuer"]["spec"]["acme"]["solvers"][0]["dns01"]["rfc2136"]
    assert f'key "{rfc2136["tsigKeyName"]}"' in printed
    assert f'secret "{objects(done)["Secret"]["stringData"]["tsig-secret"]}"' in printed


def test_rfc2136_left_to_fill_in(run: Run, minted: dict[str, Any]) -> None:
    """Without the key its secret has to be filled in, and its name if several tokens will do; or the nameserver."""
    done = run("manifest", HOST, "--solver", "rfc2136", "--nameserver", "[2001:db8::1]:5353")

    rfc2136 = objects(done)["Issuer"]["spec"]["acme"]["solvers"][0]["dns01"]["rfc2136"]
    assert ("[2001:db8::1]:5353", f"{minted['id']}-1") == (rfc2136["nameserver"], rfc2136["tsigKeyName"])
    assert {"tsig-secret": "REPLACE-ME-WITH-THE-SECRET-OF-THE-KEY"} == objects(done)["Secret"]["stringData"]
    mint(run, HOST)
    assert "tsigKeyName: REPLACE-ME-WITH-THE-NAME-OF-THE-KEY" in run("manifest", HOST, "--solver", "rfc2136").stdout


def test_rfc2136_of_two_zones() -> None:
    """Hostnames in different zones have solvers of their own: updates go to the nameserver of the zone."""
    apexes = Name.parse("acme.example.com"), Name.parse("acme.example.net")
    servers = {apexes[0]: "ns1.acme.example.com:53", apexes[1]: "ns1.acme.example.net:53"}
    hosts = tuple(
        Host(grant=Grant(hostname=Name.parse(text), challenge_name=Name.parse(f"x.{apex}"), apex=apex))
        for text, apex in (("a.example.com", apexes[0]), ("b.example.net", apexes[1]), ("c.example.com", apexes[0]))
    )

    rendered = manifests.objects(plan(hosts, Rfc2136Config(nameservers=servers, key=TsigKey(name="a", secret="b"))))

    assert [
        ("ns1.acme.example.com:53", ["a.example.com", "*.a.example.com", "c.example.com", "*.c.example.com"]),
        ("ns1.acme.example.net:53", ["b.example.net", "*.b.example.net"]),
    ] == [
        (solver["dns01"]["rfc2136"]["nameserver"], solver["selector"]["dnsNames"])
        for solver in rendered[-2]["spec"]["acme"]["solvers"]
    ]


# What all have in common


def test_ca_with_external_accounts(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """A CA by its URL, with an external account whose key comes from a file or has to be filled in."""
    directory = "https://acme.example.net/v2/directory/"
    arguments = ("manifest", HOST, "--url", API, "--server", directory, "--eab-kid", "kid_1")
    left, given = run(*arguments), run(*arguments, "--eab-key-file", "-", stdin="aGVsbG8\n")

    acme = objects(given)["Issuer"]["spec"]["acme"]
    assert directory == acme["server"]
    assert {"keyID": "kid_1", "keySecretRef": {"name": f"{HOST}-eab", "key": "hmac"}} == acme["externalAccountBinding"]
    assert {"hmac": "aGVsbG8"} == objects(given)["Secret"]["stringData"]
    assert {"hmac": "REPLACE-ME-WITH-THE-HMAC-KEY-OF-THE-EXTERNAL-ACCOUNT"} == objects(left)["Secret"]["stringData"]


def test_ca_of_ones_own(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """cert-manager gets the certificates by which it knows the CA."""
    certificate, key = self_signed()
    (tmp_path / "ca.pem").write_text(certificate + key)
    server = ("--server", "https://ca.example.net/directory", "--server-ca-file", str(tmp_path / "ca.pem"))

    acme = objects(run("manifest", HOST, "--url", API, *server))["Issuer"]["spec"]["acme"]

    assert certificate == base64.b64decode(acme["caBundle"]).decode()


def test_short_names_of_directories(run: Run, minted: dict[str, Any]) -> None:
    """Let's Encrypt and its staging have short names."""
    servers = {
        name: objects(run("manifest", HOST, "--url", API, "--server", name))["Issuer"]["spec"]["acme"]["server"]
        for name in ("letsencrypt", "letsencrypt-staging")
    }
    assert DIRECTORIES == servers


def test_cluster_issuer(run: Run, minted: dict[str, Any]) -> None:
    """A ClusterIssuer comes only if asked for, with its Secret where cert-manager looks, and says what it opens."""
    done = run("manifest", HOST, "--url", API, "--namespace", "web", "--cluster-issuer", "--cluster-namespace", "cm")

    printed = objects(done)
    assert "Issuer" not in printed
    assert {"name": HOST} == printed["ClusterIssuer"]["metadata"]
    assert "ClusterIssuer" == printed["Certificate"]["spec"]["issuerRef"]["kind"]
    assert ["cm", "cm", "cm", "web"] == [
        printed[kind]["metadata"]["namespace"] for kind in ("Secret", "Role", "RoleBinding", "Certificate")
    ]
    assert (
        "responder: warning: all namespaces can use a ClusterIssuer: a user who may create a Certificate or an "
        f"Ingress in any of them can get certificates and private keys for {HOST}\n"
    ) == done.stderr


def test_zones(run: Run, minted: dict[str, Any]) -> None:
    """By zone, the solver is for the hostname and all names below it."""
    done = run("manifest", f"*.{HOST}", HOST, "--url", API, "--select", "zones")

    assert {"dnsZones": [HOST]} == objects(done)["Issuer"]["spec"]["acme"]["solvers"][0]["selector"]


def test_where_the_api_is(run: Run, minted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The API's URL is that of the settings, unless another is given; it has to be known."""
    assert "give it with --url, or set api.url" in fault(run, HOST)
    monkeypatch.setenv("RESPONDER_API__URL", API)

    assert f"url: {API}\n" in run("manifest", HOST).stdout
    assert f"host: {API}/base\n" in run("manifest", HOST, "--solver", "acme-dns", "--url", f"{API}/base/").stdout


@pytest.mark.parametrize(
    "url",
    ["http://responder-api.responder.svc", "http://responder-api.responder.svc.cluster.local:8080/a"],
)
def test_plain_http_inside(run: Run, minted: dict[str, Any], url: str) -> None:
    """Plain HTTP is for inside a cluster."""
    for solver in ("webhook", "acme-dns"):
        assert "" == run("manifest", HOST, "--solver", solver, "--url", url).stderr


def test_plain_http_within_a_pod(run: Run, minted: dict[str, Any]) -> None:
    """In cert-manager's own pod there may be a proxy; the webhook sends no token there by itself."""
    assert "" == run("manifest", HOST, "--solver", "acme-dns", "--url", "http://[::1]").stderr
    assert "the webhook does not send the token unencrypted to http://[::1]" in fault(
        run, HOST, "--url", "http://[::1]"
    )


@pytest.mark.parametrize(
    "url", ["http://responder.example.com", "http://192.0.2.1:8080", "http://a.b.svc.evil.example", "http://a.svc"]
)
def test_plain_http_outside(run: Run, minted: dict[str, Any], url: str) -> None:
    """The webhook sends no token unencrypted elsewhere, so there is no manifest; cert-manager would, with a warning."""
    assert f"the webhook does not send the token unencrypted to {url}" in fault(run, HOST, "--url", url)
    done = run("manifest", HOST, "--solver", "acme-dns", "--url", url)
    assert f"responder: warning: cert-manager will send the token unencrypted to {url}" in done.stderr


def test_json(run: Run, minted: dict[str, Any]) -> None:
    """As JSON it is one List of the same objects, which kubectl takes as well."""
    arguments = ("manifest", HOST, "--url", API)
    as_json = json.loads(run(*arguments, "--output", "json").stdout)

    assert ("v1", "List") == (as_json["apiVersion"], as_json["kind"])
    assert list(yaml.safe_load_all(run(*arguments).stdout)) == as_json["items"]


def test_names_of_objects(run: Run) -> None:
    """Objects are named after the first hostname, or as asked; long names are cut, and still tell hostnames apart."""
    long = "a" * 50
    mint(run, f"{long}.example.com", f"{long}.example.net")

    names = [
        objects(run("manifest", host, "--url", API))["Certificate"]["metadata"]["name"]
        for host in (f"{long}.example.com", f"{long}.example.net")
    ]
    chosen = run("manifest", f"{long}.example.com", "--url", API, "--name", "shop")

    assert 2 == len(set(names))
    assert all(name.startswith("a" * 40) and len(name) <= MAX_OBJECT_NAME for name in names)
    assert ["shop-responder", "shop", "shop"] == [
        objects(chosen)[kind]["metadata"]["name"] for kind in ("Secret", "Issuer", "Certificate")
    ]
    assert "shop-tls" == objects(chosen)["Certificate"]["spec"]["secretName"]


def test_no_cname_inside_the_zone(run: Run) -> None:
    """A hostname in our own zone needs no CNAME, so none is asked for."""
    mint(run, "api.acme.example.com")

    assert "CNAME" not in run("manifest", "api.acme.example.com", "--url", API).stdout


# Refusals


def test_tokens_that_will_not_do(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """A token that is unknown, for another host, revoked or expired is refused, by its text or by its key."""
    webhook = ("--url", API, "--token-file", "-")
    rfc2136 = ("--solver", "rfc2136", "--token-file", "-")
    token, keys = minted["token"], key_file(minted["id"])

    assert "is unknown: check that all of it was copied" in fault(run, HOST, *webhook, stdin="rsp_x")
    for arguments, stdin in ((webhook, token), (rfc2136, keys)):
        assert "does not cover a.example.com, b.example.com: mint one that does" in fault(
            run, "a.example.com", HOST, "b.example.com", *arguments, stdin=stdin
        )
    assert "was not made by this service" in fault(run, HOST, *rfc2136, stdin=key_file("mine"))
    assert "there is no token with that id" in fault(run, HOST, *rfc2136, stdin=key_file(str(uuid4())))
    with connect(tmp_path) as database:
        database.execute("UPDATE tokens SET expires_at = 1")
    assert "was revoked or has expired" in fault(run, HOST, *rfc2136, stdin=keys)


def test_no_token(run: Run) -> None:
    """A hostname that nobody is granted has to be granted first; several hostnames need one token for all."""
    mint(run, "a.example.com")
    mint(run, "b.example.com")
    revoked = mint(run, HOST)["id"]
    run("token", "revoke", revoked)

    assert "no token covers some.example.com: mint one with `responder token mint some.example.com`" == fault(
        run, f"*.{HOST}", "--url", API
    )
    assert (
        "no token covers all of a.example.com, b.example.com: "
        "mint one with `responder token mint a.example.com b.example.com`"
    ) == fault(run, "a.example.com", "b.example.com", "--url", API)


def test_hosts_that_are_none(run: Run) -> None:
    """What cannot be a hostname is named, all at once."""
    text = fault(run, "192.0.2.1", "com", "x.onion", "--url", API)

    assert all(part in text for part in ("is an IP address", "is a public suffix", "is an .onion name"))


def test_zone_that_left(run: Run, minted: dict[str, Any], tmp_path: Path) -> None:
    """A grant whose zone is not in the configuration any more is refused, for nothing would be served."""
    path = tmp_path / "responder.toml"
    path.write_text(path.read_text().replace("acme.example.com", "other.example.com"))

    assert "is in the zone acme.example.com, which is not served here" in fault(run, HOST, "--url", API)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: no such file or directory"),
        (b" \n", "is empty"),
        (b"x" * 70_000, "cannot be read: it is longer than 64 KiB"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_unreadable_files(
    run: Run, minted: dict[str, Any], tmp_path: Path, content: bytes | None, expected: str
) -> None:
    """A file that is no use is named with its option."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)

    assert f"--token-file {path}: {expected}" == fault(run, HOST, "--url", API, "--token-file", str(path))


def test_files_of_another_kind(run: Run, minted: dict[str, Any]) -> None:
    """A token where a key is due, a key that cert-manager cannot use, a text where certificates are due."""
    rfc2136 = (HOST, "--solver", "rfc2136", "--token-file", "-")
    for text in (minted["token"], key_file(minted["id"], algorithm="hmac-md5")):
        assert "has no TSIG key for HMAC-SHA256 or HMAC-SHA512" in fault(run, *rfc2136, stdin=text)
    assert "has no certificate in PEM" in fault(run, HOST, "--url", API, "--ca-file", "-", stdin="x")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--solver", "rfc2136", "--url", API), "leave out --url"),
        (("--url", API, "--nameserver", "ns1.example.com"), "--nameserver is for"),
        (("--solver", "acme-dns", "--url", API, "--ca-file", "x"), "--ca-file is for"),
        (("--url", API, "--eab-key-file", "x"), "needs --eab-kid"),
        (("--url", API, "--token-file", "-", "--eab-kid", "x", "--eab-key-file", "-"), "only one"),
        (("--url", "responder.example.com"), "is not a URL"),
        (("--url", "https://user@responder.example.com"), "is not a URL"),
        (("--url", "https://responder.example.com/?x=1"), "is not a URL"),
        (("--url", "https://responder.example.com:x"), "is not a URL"),
        (
            ("--url", API, "--server", "buypass"),
            "is not a CA: write letsencrypt, letsencrypt-staging, or the https:// URL",
        ),
        (("--url", API, "--namespace", "a.b"), "is not a valid name of a namespace"),
        (("--url", API, "--namespace", "a" * 64), "is not a valid name of a namespace"),
        (("--url", API, "--name", "A"), "is not a valid name for Kubernetes objects"),
        (("--url", API, "--email", "a\nb"), "is not printable ASCII"),
        (("--solver", "rfc2136", "--nameserver", "::1"), "is not HOST or HOST:PORT"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    """Options that do not go together, or make no sense, are wrong usage."""
    done = run("manifest", HOST, *arguments, status=2)

    assert "" == done.stdout
    assert expected in " ".join(done.stderr.split())


def test_secrets_stay_out_of_tracebacks() -> None:
    """What is shown of a plan for debugging has no secret in it."""
    solvers = (
        Rfc2136Config(nameservers={}, key=TsigKey(name="a", secret="rsp_hidden")),
        manifests.WebhookConfig(
            url=API, token="rsp_hidden", service_account=manifests.ServiceAccount(namespace="a", name="b")
        ),
    )
    external = manifests.ExternalAccount(kid="a", hmac="rsp_hidden")

    assert "rsp_hidden" not in repr([*solvers, external])


# Those who read it


ALL = [
    ("webhook", "--url", API, "--eab-kid", "kid", "--email", "me@example.com"),
    ("webhook", "--url", API, "--cluster-issuer", "--select", "zones"),
    ("acme-dns", "--url", API),
    ("rfc2136",),
]


@pytest.mark.parametrize("solver", ALL)
def test_kubectl(run: Run, minted: dict[str, Any], tmp_path: Path, solver: tuple[str, ...]) -> None:
    """kubectl applies all of it (as a dry run, without a cluster)."""
    printed = run("manifest", HOST, f"*.{HOST}", "--namespace", "web", "--solver", *solver).stdout

    said = kubectl.apply(printed, tmp_path)

    assert [each["metadata"]["name"] for each in yaml.safe_load_all(printed)] == [
        line.split()[0].partition("/")[2] for line in said
    ]
    assert all(line.endswith(" created (dry run)") for line in said)


@pytest.mark.parametrize("solver", ALL)
def test_schema_of_kubernetes(run: Run, minted: dict[str, Any], solver: tuple[str, ...]) -> None:
    """Kubernetes' own objects are what its schema has, no field more."""
    for each in yaml.safe_load_all(run("manifest", HOST, "--namespace", "web", "--solver", *solver).stdout):
        schemas.check(each)


@pytest.mark.parametrize("solver", ALL)
def test_schema_of_cert_manager(run: Run, minted: dict[str, Any], tmp_path: Path, solver: tuple[str, ...]) -> None:
    """cert-manager's objects are what its CRDs have, no field more, for a pinned token as well."""
    if solver[0] == "webhook" and "--cluster-issuer" not in solver:
        with connect(tmp_path) as database:
            database.execute("UPDATE tokens SET account_thumbprint = ?", ("A" * 43,))
    for each in yaml.safe_load_all(run("manifest", HOST, "--namespace", "web", "--solver", *solver).stdout):
        if schemas.is_of_cert_manager(each):
            schemas.check_crd(each)


def plan(hosts: tuple[Host, ...], solver: manifests.SolverConfig) -> ManifestPlan:
    return ManifestPlan(hosts=hosts, solver=solver, name="x", server=DIRECTORIES["letsencrypt"])


def self_signed() -> tuple[str, str]:
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificate.decode(), key.private_bytes(*pem).decode()
