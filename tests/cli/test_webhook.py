"""`responder webhook` as a pod runs it: how it starts, how it stops, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from responder import logs
from responder.cli.webhook import webhook
from tests.support.kubernetes.cert_manager import Order
from tests.support.kubernetes.certificates import Authority
from tests.support.kubernetes.cluster import NAMESPACE, SECRET, FakeCluster, fake_cluster
from tests.support.kubernetes.responder import TOKEN, FakeResponder
from tests.support.ports import free_port
from tests.support.processes import PATIENCE
from tests.support.zones import VALUE

ORDER = Order(
    dns_name="some.example.com",
    key=VALUE,
    fqdn="_acme-challenge.some.acme.example.com.",
    zone="acme.example.com.",
)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    async with fake_cluster(tmp_path) as cluster:
        cluster.api.put_secret(NAMESPACE, SECRET, token=TOKEN)
        yield cluster


async def test_process(cluster: FakeCluster) -> None:
    """It runs without configuration file and database, tells what it does, and no secret; SIGTERM ends it well."""
    responder, port = FakeResponder(), free_port()
    async with (
        responder.listening(),
        cluster.process(port=port) as process,
        cluster.cert_manager(port) as cert_manager,
    ):
        order = replace(ORDER, config=responder.config)
        assert await cert_manager.present(order) is None
        assert await cert_manager.clean_up(order) is None
        process.send_signal(signal.SIGTERM)
        _, written = await process.communicate()

    assert 0 == process.returncode
    events = [json.loads(line) for line in written.decode().splitlines()]
    told = [event["event"] for event in events if event["level"] == "info"]
    assert ["serving", "trusting a front proxy", "present", "cleanup", "stopping"] == told
    assert TOKEN not in written.decode()
    assert ORDER.key not in written.decode()
    assert {"serving.crt", "serving.key", "serviceaccount"} == {path.name for path in cluster.directory.iterdir()}


async def test_stop_with_a_request_under_way(cluster: FakeCluster) -> None:
    """A request that is under way when the pod is stopped is answered; a new one is not taken."""
    responder, port, begun, going = FakeResponder(), free_port(), asyncio.Event(), asyncio.Event()

    async with (
        responder.listening(),
        cluster.process(port=port) as process,
        cluster.cert_manager(port) as cert_manager,
    ):
        responder.pause = lambda: _meet(begun, going)
        presenting = asyncio.create_task(cert_manager.present(replace(ORDER, config=responder.config)))
        await begun.wait()
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(_refuses(port), PATIENCE)
        going.set()

        assert await presenting is None
        await process.communicate()

    assert 0 == process.returncode


async def _meet(begun: asyncio.Event, going: asyncio.Event) -> None:
    begun.set()
    await going.wait()


async def _refuses(port: int) -> None:
    """Returns as soon as nobody listens on the port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        except ConnectionRefusedError:
            return
        except ConnectionError:
            pass  # it stopped to listen before it took this one
        await asyncio.sleep(0.01)


async def test_replicas(cluster: FakeCluster) -> None:
    """What one replica began, another one ends; one that is killed leaves nothing that is missed."""
    responder, ports = FakeResponder(), (free_port(), free_port())
    async with (
        responder.listening(),
        cluster.process(port=ports[0]) as first,
        cluster.process(port=ports[1]),
        cluster.cert_manager(ports[0]) as one,
        cluster.cert_manager(ports[1]) as other,
    ):
        order = replace(ORDER, config=responder.config)
        assert await one.present(order) is None
        first.kill()
        await first.wait()
        assert await other.clean_up(order) is None

    assert ["/present", "/cleanup"] == [path for path, _, _ in responder.requests]


# What keeps it from starting


@pytest.fixture
def offline(tmp_path: Path) -> FakeCluster:
    """The files that a pod finds, and a cluster whose API is not there."""

    async def prepare() -> FakeCluster:
        async with fake_cluster(tmp_path) as cluster:
            return cluster

    return asyncio.run(prepare())


Spoil = Callable[[FakeCluster, dict[str, str]], object]


def _encrypt(cluster: FakeCluster, _: dict[str, str]) -> None:
    path = cluster.directory / "serving.key"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def _swap(cluster: FakeCluster, _: dict[str, str]) -> None:
    (cluster.directory / "serving.key").write_text(Authority("other").server("other").key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda _, environ: environ.clear(),
            "the webhook must run in a pod of a Kubernetes cluster: KUBERNETES_SERVICE_HOST",
        ),
        (
            lambda _, environ: environ.update(KUBERNETES_SERVICE_PORT="https"),
            "the webhook must run in a pod of a Kubernetes cluster",
        ),
        (lambda cluster, _: (cluster.service_account / "token").unlink(), "cannot read the service account in "),
        (
            lambda cluster, _: (cluster.service_account / "ca.crt").write_text("x"),
            "cannot read the service account in ",
        ),
        (lambda cluster, _: (cluster.directory / "serving.crt").unlink(), "No such file or directory"),
        (lambda cluster, _: (cluster.directory / "serving.key").write_text(""), "cannot use the serving certificate "),
        (_swap, "key values mismatch"),
        (_encrypt, "cannot use the serving certificate "),
    ],
)
def test_cannot_start(offline: FakeCluster, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, message: str) -> None:
    """What it cannot do without is named in one line, and it ends: the pod shows it, and Kubernetes tries again."""
    environ = offline.environ
    spoil(offline, environ)

    fault = _start(offline, monkeypatch, environ, "--listen", "127.0.0.1:0")

    assert message in fault
    assert "\n" not in fault


def test_port_taken(offline: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody else has is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fault = _start(offline, monkeypatch, offline.environ, "--listen", address)

    assert "Address already in use" in fault


def _start(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], *arguments: str) -> str:
    """Run the command to its end, which is not far; the reason that its log gives for that."""
    monkeypatch.setattr(logs, "configure", lambda **_: None)  # the tests' own stays
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    options = cluster.options()
    files = ["--tls-cert-file", str(options.certificate), "--tls-private-key-file", str(options.key)]
    account = ["--service-account-dir", str(options.service_account)]
    with structlog.testing.capture_logs() as logged:
        done = CliRunner().invoke(webhook, [*files, *account, *arguments], env=environ)
    assert (1, "cannot start", "critical") == (done.exit_code, logged[-1]["event"], logged[-1]["log_level"])
    return str(logged[-1]["reason"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--listen", "8443", "does not start with an IP address"),
        ("--group", "responder", "is not a name in lower case such as 'acme.responder.dev'"),
        ("--group", "Acme.example.com", "is not a name in lower case such as 'acme.responder.dev'"),
        ("--group", f"{'a.' * 127}aa", "is not a name in lower case such as 'acme.responder.dev'"),
        ("--solver", "Responder", "is not a name in lower case such as 'responder'"),
        ("--solver", "a.b", "is not a name in lower case such as 'responder'"),
        ("--cluster-domain", ".", "is not a name in lower case such as 'cluster.local'"),
    ],
)
def test_usage(option: str, value: str, message: str) -> None:
    """An option that cannot be meant is wrong usage."""
    done = CliRunner().invoke(webhook, ["--tls-cert-file", "x", "--tls-private-key-file", "x", option, value])

    assert 2 == done.exit_code
    assert message in done.output
