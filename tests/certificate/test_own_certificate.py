"""The API's own certificate: what is done when, what is kept, and what goes on when it cannot be had."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog

from responder.certificate import own
from responder.certificate.authority import AcmeAccount, Authority, Challenge
from responder.certificate.own import OwnCertificateKeeper
from responder.config import Settings, ZoneSettings
from responder.errors import AuthorityUnavailable, CertificateRefused, Invalid, ResponderError, StoreUnavailable
from responder.names import Name
from responder.store import Sealer
from responder.tls.keypair import KeyPair
from tests.support.keypairs import key_pair
from tests.support.service import APEX, Control, running, until, url

__all__ = ["running", "url"]

HOST = "api.acme.example.com"
HOSTNAME = Name.parse(HOST)
DIRECTORY = "https://ca.example/dir"
DAY = timedelta(days=1)


@dataclass
class Ca:
    """What the CA of a test does: issues *pair*, or fails with *fault*, after *value* was seen in the DNS."""

    pair: KeyPair | None = None
    fault: BaseException | None = None
    window: tuple[datetime, datetime] | ResponderError | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    identities: tuple[str, ...] = ()
    obtained: list[dict[str, Any]] = field(default_factory=list)
    asked_for_window: int = 0
    seen: set[str] | None = None


@dataclass
class Host:
    """A control process's parts with a certificate to keep; *used* are those that TLS was given."""

    control: Control
    ca: Ca
    logs: list[structlog.typing.EventDict]
    used: list[KeyPair] = field(default_factory=list)
    refuses: Invalid | None = None
    undelegated: str = ""
    looks: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def keeper(self) -> OwnCertificateKeeper:
        zone = {
            "name": str(APEX),
            "hostmaster": "hostmaster@example.com",
            "nameservers": {f"ns1.{APEX}": ["192.0.2.1"]},
            "records": f"{HOST}. A 192.0.2.1",
        }
        api = {"tls": "acme", "hostname": HOST, "acme": {"directory": DIRECTORY} | self.settings}
        settings = Settings.model_validate({"zones": [zone], "api": api})
        return OwnCertificateKeeper(
            self.control.store,
            self.control.challenges,
            settings,
            self._use,
            clock=self.control.clock,
            undelegated=self._look_at_delegation,
        )

    async def _look_at_delegation(self, zone: ZoneSettings) -> str:
        assert zone.name == APEX
        self.looks += 1
        return self.undelegated

    def _use(self, pair: KeyPair) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.used.append(pair)

    async def look(self, keeper: OwnCertificateKeeper | None = None) -> float:
        """One round of the keeper's work."""
        return await (keeper or self.keeper())._look()

    def logged(self, event: str) -> list[structlog.typing.EventDict]:
        return [entry for entry in self.logs if event in entry["event"]]

    def pass_time(self, time: timedelta) -> None:
        self.control.clock.now += time

    def certificate(self, lifetime: timedelta = 90 * DAY) -> KeyPair:
        return key_pair(HOST, begins=self.control.clock.now, lifetime=lifetime)


@pytest.fixture
async def host(running: Control, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    ca = Ca()
    ca.gate.set()

    async def log_in(_: Authority, **__: Any) -> AcmeAccount:
        return AcmeAccount("https://ca.example/account", is_new=not ca.obtained, terms="https://ca.example/terms")

    async def caa_identities(_: Authority) -> tuple[str, ...]:
        return ca.identities

    async def window(_: Authority, __: Any) -> tuple[datetime, datetime] | None:
        ca.asked_for_window += 1
        if isinstance(ca.window, ResponderError):
            raise ca.window
        return ca.window

    async def obtain(_: Authority, names: list[str], solver: Any, **how: Any) -> KeyPair | None:
        challenge = Challenge(names[0], "v" * 43, "t", None)  # type: ignore[arg-type]
        try:
            assert f"_acme-challenge.{HOST}" == await solver.present(challenge)
            ca.seen = running.values(HOST)
            await ca.gate.wait()
            ca.obtained.append({"names": names, **how})
            if ca.fault is not None:
                raise ca.fault
            return ca.pair
        finally:
            await solver.cleanup(challenge)

    monkeypatch.setattr(Authority, "log_in", log_in)
    monkeypatch.setattr(Authority, "caa_identities", caa_identities)
    monkeypatch.setattr(Authority, "window", window)
    monkeypatch.setattr(own, "obtain", obtain)
    with structlog.testing.capture_logs() as logs:
        yield Host(running, ca, logs)


async def test_first_certificate(host: Host) -> None:
    """
    The challenge name exists from the start, and the first certificate is obtained through our own zone, written down,
    and then used.
    """
    keeper = host.keeper()
    await keeper.load()
    await until(lambda: host.control.values(HOST) == set())
    host.ca.pair = host.certificate()

    assert 0.0 == await host.look(keeper)
    assert own.LOOK_INTERVAL == await host.look(keeper)

    known = await host.control.store.certificates.find(HOSTNAME)
    assert {"v" * 43} == host.ca.seen
    assert set() == host.control.values(HOST)
    assert [host.ca.pair] == host.used
    assert (host.ca.pair, DIRECTORY, 0, None) == (known.pair, known.directory, known.failures, known.retry_at)
    assert ([HOST], None) == (host.ca.obtained[0]["names"], host.ca.obtained[0]["replaces"])
    (entry,) = host.logged("agreed to the CA's terms")
    assert "https://ca.example/terms" == entry["terms"]


async def test_no_order_before_the_delegation(host: Host) -> None:
    """Until the zone is delegated nothing is asked of the CA; the log has a line now and then, and one at the end."""
    keeper = host.keeper()
    host.ca.pair = host.certificate()
    host.undelegated = "no server of example.com delegates acme.example.com to ns1.acme.example.com"
    for _ in range(5):
        assert own.DELEGATION_INTERVAL == await host.look(keeper)
    assert [] == host.ca.obtained
    (line,) = host.logged("waiting for the delegation")
    assert ("warning", host.undelegated) == (line["log_level"], line["reason"])

    host.undelegated = ""
    assert 0.0 == await host.look(keeper)

    assert [host.ca.pair] == host.used
    assert 1 == len(host.logged("the zone is delegated"))
    assert [] == host.logged("cannot obtain")
    looks = host.looks
    host.pass_time(61 * DAY)
    host.undelegated = "it is gone again"
    host.ca.pair = host.certificate()
    assert 0.0 == await host.look(keeper)
    assert (2, looks) == (len(host.ca.obtained), host.looks)


async def test_a_delegation_that_only_others_see(host: Host) -> None:
    """After an hour a certificate is ordered nevertheless: the resolver of this machine may see another world."""
    keeper = host.keeper()
    host.ca.pair = host.certificate()
    host.undelegated = "no server of example.com delegates acme.example.com"
    await host.look(keeper)
    host.pass_time(own.DELEGATION_PATIENCE)
    assert 0.0 == await host.look(keeper)
    assert [host.ca.pair] == host.used


async def test_restart(host: Host) -> None:
    """What is in the store is used before anybody is answered, and nothing is asked of a CA."""
    host.ca.pair = host.certificate()
    await host.look()

    keeper = host.keeper()
    await keeper.load()

    assert [host.ca.pair, host.ca.pair] == host.used
    assert own.LOOK_INTERVAL == await host.look(keeper)
    assert 1 == len(host.ca.obtained)
    assert [] == host.logged("self-signed")


async def test_renewal(host: Host) -> None:
    """At two thirds of its lifetime the certificate is replaced, and the CA told which; the old one stays until."""
    first = host.ca.pair = host.certificate()
    keeper = host.keeper()
    await host.look(keeper)
    host.pass_time(57 * DAY)
    await host.look(keeper)
    assert [first] == host.used
    host.pass_time(3 * DAY)
    second = host.ca.pair = host.certificate()

    await host.look(keeper)

    assert [first, second] == host.used
    assert first.leaf == host.ca.obtained[-1]["replaces"]


async def test_renewal_information(host: Host) -> None:
    """When the CA would like a renewal, it gets it; it is asked about that now and then, and its silence is borne."""
    keeper = host.keeper()
    first = host.ca.pair = host.certificate()
    now = host.control.clock.now
    host.ca.window = now + 40 * DAY, now + 40 * DAY
    await host.look(keeper)
    for _ in range(5):
        await host.look(keeper)
    assert 1 == host.ca.asked_for_window

    host.ca.window = AuthorityUnavailable("the CA https://ca.example/dir: it cannot be reached")
    host.pass_time(own.ASK_AGAIN)
    await host.look(keeper)
    assert 1 == len(host.logged("no renewal information; renewing at 2/3"))
    host.ca.window = now + DAY, now + DAY
    host.pass_time(own.ASK_AGAIN)
    await host.look(keeper)
    assert [first] == host.used

    second = host.ca.pair = host.certificate()
    host.pass_time(DAY)
    await host.look(keeper)
    assert [first, second] == host.used
    assert 4 == host.ca.asked_for_window


async def test_expired_certificate(host: Host) -> None:
    """A certificate that has expired is renewed, and no CA is asked about it (RFC 9773, section 4.3)."""
    keeper = host.keeper()
    host.ca.pair = host.certificate()
    await host.look(keeper)
    host.pass_time(100 * DAY)
    host.ca.pair, before = host.certificate(), host.ca.asked_for_window

    await host.look(keeper)

    assert 2 == len(host.used)
    assert before == host.ca.asked_for_window


async def test_another_authority(host: Host) -> None:
    """Another CA in the settings means another account and certificate, at once; the old one stays till then."""
    host.ca.pair = host.certificate()
    await host.look()
    host.settings = {"directory": "https://other.example/dir"}
    host.pass_time(timedelta(minutes=1))
    second = host.ca.pair = host.certificate()
    keeper = host.keeper()
    await keeper.load()
    assert 2 == len(host.used)

    await host.look(keeper)

    assert second == host.used[-1]
    assert host.ca.obtained[-1]["replaces"] is None
    store = host.control.store
    keys = {await store.certificates.account_key(d, b"none") for d in (DIRECTORY, "https://other.example/dir")}
    assert 2 == len(keys)
    assert b"none" not in keys


FAULTS: list[tuple[BaseException, float]] = [
    (AuthorityUnavailable("the CA cannot be reached"), 15),
    (CertificateRefused("the CA says: no"), 300),
    (AuthorityUnavailable("come again", retry_after=1_000.0), 1_000),
    (Invalid("the CA wants a binding"), 15),
]


@pytest.mark.parametrize(("fault", "seconds"), FAULTS)
async def test_failure(host: Host, monkeypatch: pytest.MonkeyPatch, fault: BaseException, seconds: float) -> None:
    """A failure is one line with its reason; it is tried again after pauses that grow; nothing is left in the DNS."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    host.ca.fault = fault
    keeper = host.keeper()

    assert 0.0 == await host.look(keeper)
    assert min(seconds, own.LOOK_INTERVAL) == await host.look(keeper)

    (entry,) = host.logged("cannot obtain a certificate")
    assert (str(fault), 1) == (entry["reason"], entry["failures"])
    assert set() == host.control.values(HOST)
    host.pass_time(timedelta(seconds=seconds - 1))
    await host.look(keeper)
    assert 1 == len(host.ca.obtained)
    host.pass_time(timedelta(seconds=1))
    await host.look(keeper)
    assert [1, 2] == [entry["failures"] for entry in host.logged("cannot obtain a certificate")]
    host.ca.fault, host.ca.pair = None, host.certificate()
    host.pass_time(2 * timedelta(seconds=seconds))
    await host.look(keeper)
    assert [host.ca.pair] == host.used
    assert 0 == (await host.control.store.certificates.find(HOSTNAME)).failures


async def test_restart_after_a_failure(host: Host) -> None:
    """Whoever mends the settings and restarts does not wait for long; a process that restarts in circles does."""
    host.ca.fault = CertificateRefused("no")
    await host.look()
    await host.look()
    assert 1 == len(host.ca.obtained)

    host.pass_time(own.RESTART_PAUSE)
    await host.look()

    assert 2 == len(host.ca.obtained)


async def test_too_slow(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that takes for ever is given up, and what it presented is cleaned up."""
    monkeypatch.setattr(own, "OBTAIN_DEADLINE", 1.0)
    host.ca.gate.clear()

    await host.look()
    assert {"v" * 43} == host.ca.seen

    (entry,) = host.logged("cannot obtain a certificate")
    assert "obtaining a certificate took too long" == entry["reason"]
    assert set() == host.control.values(HOST)


async def test_one_node_at_a_time(host: Host) -> None:
    """While one node obtains a certificate the others wait; then they use the same one."""
    host.ca.gate.clear()
    first, second = host.keeper(), host.keeper()
    host.ca.pair = host.certificate()
    busy = asyncio.create_task(host.look(first))
    await until(lambda: host.ca.seen is not None)

    assert own.LOOK_AGAIN == await host.look(second)
    assert [] == host.used
    host.ca.gate.set()
    await busy
    await host.look(second)

    assert 1 == len(host.ca.obtained)
    assert [host.ca.pair, host.ca.pair] == host.used


async def test_stopped_meanwhile(host: Host) -> None:
    """A process that is stopped in the middle takes its value back, and leaves the way free for the next."""
    host.ca.gate.clear()
    busy = asyncio.create_task(host.keeper().run())
    await until(lambda: host.ca.seen is not None)
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy
    assert set() == host.control.values(HOST)
    host.ca.gate.set()
    host.ca.pair = host.certificate()

    await host.look()

    assert [host.ca.pair] == host.used


async def test_killed_meanwhile(host: Host) -> None:
    """A node that is killed in the middle is in nobody's way once its lease is over."""
    store, now = host.control.store, host.control.clock.now
    assert await store.certificates.begin(HOSTNAME, holder=uuid4(), lease=timedelta(seconds=2), now=now)
    host.ca.pair = host.certificate()
    keeper = host.keeper()

    while await host.look(keeper) == own.LOOK_AGAIN:
        assert [] == host.used
        await asyncio.sleep(0.05)

    assert [host.ca.pair] == host.used


async def test_slow_authority(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that waits for a slow CA keeps its lease, however short that is."""
    monkeypatch.setattr(own, "SIGN_INTERVAL", 0.01)
    prolonged = asyncio.Event()
    go_on = host.control.store.certificates.go_on

    async def note(hostname: Name, **lease: Any) -> None:
        await go_on(hostname, **lease)
        prolonged.set()

    monkeypatch.setattr(host.control.store.certificates, "go_on", note)
    host.ca.gate.clear()
    host.ca.pair = host.certificate()
    busy = asyncio.create_task(host.look(host.keeper()))
    await until(lambda: host.ca.seen is not None)

    prolonged.clear()
    await prolonged.wait()

    assert own.LOOK_AGAIN == await host.look(host.keeper())
    host.ca.gate.set()
    await busy
    assert [host.ca.pair] == host.used


async def test_store_that_fails_at_the_worst_moment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that was issued but cannot be written is not thrown away: it is written when the store is back."""
    keeper, store = host.keeper(), host.control.store
    host.ca.pair = host.certificate()
    keep = store.certificates.keep

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store.certificates, "keep", fail)
    with pytest.raises(StoreUnavailable):
        await host.look(keeper)
    assert [] == host.used
    monkeypatch.setattr(store.certificates, "keep", keep)

    await host.look(keeper)

    assert [host.ca.pair] == host.used
    assert 1 == len(host.ca.obtained)


async def test_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a store that is away nor a fault of ours ends the work; both are logged."""
    monkeypatch.setattr(own, "LOOK_INTERVAL", 0.01)
    keeper = host.keeper()
    faults: list[BaseException] = [StoreUnavailable("the disk is full"), RuntimeError("a fault")]
    find = host.control.store.certificates.find

    async def fail(hostname: Name) -> Any:
        if faults:
            raise faults.pop(0)
        return await find(hostname)

    monkeypatch.setattr(host.control.store.certificates, "find", fail)
    host.ca.pair = host.certificate()
    running = asyncio.create_task(keeper.run())
    await until(lambda: host.used)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    first, second = host.logged("using the old one")
    assert ("the disk is full", "unexpected error: RuntimeError") == (first["reason"], second["reason"])
    assert second["exc_info"] is not None
    assert 1 == len(host.logged("the certificate is renewed again"))


async def test_certificate_that_tls_refuses(host: Host) -> None:
    """A certificate of the CA that cannot be used is reported, once, and the old one stays."""
    keeper = host.keeper()
    host.ca.pair = host.certificate()
    host.refuses = Invalid("TLS cannot use the certificate: ee key too small")

    for _ in range(3):
        await host.look(keeper)

    (entry,) = host.logged("the certificate of the CA cannot be used")
    assert str(host.refuses) == entry["reason"]
    assert [] == host.used


async def test_damaged_certificate(host: Host) -> None:
    """What is damaged in the store is replaced."""
    host.ca.pair = host.certificate()
    await host.look()
    await host.control.store.certificates.keep(HOSTNAME, DIRECTORY, KeyPair(b"x", b"y", host.ca.pair.leaf))
    host.pass_time(timedelta(minutes=1))
    second = host.ca.pair = host.certificate()

    await host.look()

    assert second == host.used[-1]


# The token


async def test_token(host: Host) -> None:
    """One token keeps the challenge name, for all nodes and restarts, and nobody has a secret of it."""
    store = host.control.store
    for _ in range(2):
        await host.keeper().load()
    (token,) = await store.tokens()
    assert own.DESCRIPTION == token.description

    await store.revoke(token.id, at=host.control.clock())
    host.ca.pair = host.certificate()
    await host.look()

    assert [host.ca.pair] == host.used
    assert 2 == len(await store.tokens())


async def test_name_that_is_taken(host: Host) -> None:
    """If a hostname outside the zone has the challenge name, that is said, and nothing else stops."""
    await host.control.mint("api.example.com")
    keeper = host.keeper()
    await keeper.load()
    await host.look(keeper)

    (entry,) = host.logged("the challenge name of api.hostname is not available")
    fix = "choose another api.hostname, or revoke the tokens of that hostname"
    assert f"_acme-challenge.{HOST} already belongs to api.example.com: {fix}" == entry["reason"]
    assert entry["reason"] == host.logged("cannot obtain a certificate")[0]["reason"]


# CAA and bindings


@pytest.mark.parametrize(
    ("caa", "identities", "warned"),
    [
        ("", (), False),
        ("", ("ca.example", "ca.example.net"), True),
        ("ca.example; x=y", ("ca.example", "ca.example.net"), False),
        ("else.example", ("ca.example",), True),
    ],
)
async def test_caa(host: Host, caa: str, identities: tuple[str, ...], warned: bool) -> None:  # noqa: FBT001
    """A CAA of ours that does not name the CA as it calls itself is pointed out, with what to write."""
    host.settings, host.ca.identities, host.ca.pair = {"caa": caa}, identities, host.certificate()

    await host.look()

    assert [identities] * warned == [
        entry["identities"] for entry in host.logged("CAA does not allow this CA to issue")
    ]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "the HMAC key in {path}: cannot be read: no such file or directory"),
        (lambda path: path.write_bytes(b"\xff"), "the HMAC key in {path}: is not UTF-8 text"),
        (lambda path: path.write_text("no key"), "the HMAC key of the external account binding is not base64url"),
    ],
    ids=["gone", "binary", "nonsense"],
)
async def test_binding_that_is_none(host: Host, tmp_path: Path, write: Callable[[Path], object], reason: str) -> None:
    """A file without a usable HMAC key is one line."""
    path = tmp_path / "hmac"
    write(path)
    host.settings = {"eab_kid": "kid", "eab_hmac_key_file": str(path)}

    await host.look()

    (entry,) = host.logged("cannot obtain a certificate")
    assert entry["reason"].startswith(reason.format(path=path))


async def test_another_key_file(host: Host) -> None:
    """
    A certificate that was encrypted with another key file is not replaced at once, since several nodes with different
    files would take turns at it; after three days it is.
    """
    store = host.control.store
    store.certificates._sealer = Sealer(b"1" * 32)
    first = host.ca.pair = host.certificate()
    await host.look()
    store.certificates._sealer = Sealer(b"2" * 32)

    keeper = host.keeper()
    await keeper.load()
    with pytest.raises(Invalid, match="encrypted with another key file: use the same file on every node"):
        await host.look(keeper)
    host.pass_time(own.LOCKED_PAUSE + timedelta(hours=1))
    second = host.ca.pair = host.certificate()
    await host.look(keeper)

    assert [first, second] == host.used
    assert second == (await store.certificates.find(HOSTNAME)).pair


async def test_no_key_file(host: Host) -> None:
    """Without any key file, a certificate that was encrypted is never replaced."""
    store = host.control.store
    store.certificates._sealer = Sealer(b"1" * 32)
    host.ca.pair = host.certificate()
    await host.look()
    store.certificates._sealer = None

    host.pass_time(80 * DAY)
    with pytest.raises(Invalid, match="name the key file that it was encrypted with"):
        await host.look()

    assert 1 == len(host.ca.obtained)
