"""What the doctor makes of the API: real servers on loopback, with certificates of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from responder.config import ApiSettings
from responder.doctor import Api, Finding, Mark
from responder.doctor.api import examine
from responder.doctor.questions import Asker, Server
from responder.doctor.walk import Walk
from responder.tls.keypair import KeyPair
from tests.support.apis import serving
from tests.support.keypairs import key_pair
from tests.support.world import World, world

HOST = "api.acme.example.com"
RESOLVER = "127.0.9.101"
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


async def walk_of(servers: World, records: str) -> Walk:
    await servers.add(RESOLVER, records, recursive=True)
    return await Walk.start(Asker(lambda _: None), [Server("the resolver", RESOLVER, servers.port)], servers.port)


async def look(url: str, *, mode: str = "acme", records: str = f"{HOST}. A 127.0.0.1") -> list[Finding]:
    """What the doctor finds at *url*."""
    files = {"certificate_file": "tls.crt", "private_key_file": "tls.key"} if mode == "files" else {}
    settings = ApiSettings.model_validate({"url": url, "tls": mode, "hostname": HOST, **files})
    async with world() as servers:
        return await examine(await walk_of(servers, records), Api.of(settings))


def trust(pair: KeyPair, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let this machine trust the certificate."""
    roots = directory / "roots.pem"
    roots.write_bytes(pair.chain)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))


async def test_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An API that answers, and shows a certificate that clients trust."""
    pair = key_pair(HOST)
    trust(pair, monkeypatch, tmp_path)
    async with serving(pair) as port:
        found = await look(f"https://{HOST}:{port}", mode="files")

    until = f"{pair.not_after:%Y-%m-%d}"
    assert [
        (Mark.TICK, "it responds at 127.0.0.1"),
        (Mark.TICK, f"issued by CN={HOST}, valid until {until}"),
    ] == [(finding.mark, finding.text) for finding in found]


@pytest.mark.parametrize(
    ("pair", "mode", "mark", "text"),
    [
        (key_pair(HOST, begins=NOW - 6 * 365 * DAY), "acme", Mark.CROSS, "clients refuse it: it has expired"),
        (
            key_pair(HOST, begins=NOW + DAY),
            "files",
            Mark.CROSS,
            "clients refuse it: it is not valid yet, or the clock of this machine is behind",
        ),
        (key_pair("other.example.com"), "files", Mark.CROSS, f"clients refuse it: it is not for {HOST}"),
        (
            key_pair(HOST),
            "acme",
            Mark.CROSS,
            "clients refuse it: it is self-signed, because the CA has not issued one yet",
        ),
        (
            key_pair(HOST),
            "files",
            Mark.NOTE,
            "this machine does not trust it (self-signed certificate); clients that do not trust its issuer refuse it",
        ),
        (
            key_pair(HOST, begins=NOW - 85 * DAY),
            "files",
            Mark.NOTE,
            f"it expires on {NOW + 5 * DAY:%Y-%m-%d}, and should have been renewed already",
        ),
    ],
)
async def test_certificates(pair: KeyPair, mode: str, mark: Mark, text: str) -> None:
    """What clients refuse is a cross, whoever issued it; what some may trust is worth knowing."""
    async with serving(pair) as port:
        answers, certificate = await look(f"https://{HOST}:{port}", mode=mode)

    assert Mark.TICK is answers.mark
    assert (mark, text) == (certificate.mark, certificate.text)
    if mark is Mark.CROSS:
        assert certificate.fix is not None
        (line,) = certificate.fix.lines
        assert line.startswith("journalctl" if mode == "acme" else f"openssl s_client -connect {HOST}:{port} ")


async def test_not_there() -> None:
    """Nobody listens, the port speaks no TLS or no HTTP, or the answer is another one; and there is no address."""
    async with serving(None, status=502) as port:
        ill = await look(f"http://{HOST}:{port}", mode="off")
        plain = await look(f"https://{HOST}:{port}")
    down = await look(f"http://{HOST}:{port}", mode="off")
    nowhere = await look(f"https://{HOST}", records="example.com. A 127.0.0.1")

    assert [
        "at 127.0.0.1 it responds with status 502",
        "at 127.0.0.1 it does not speak TLS there",
        "at 127.0.0.1 it cannot be reached (connection refused)",
        f"the resolver finds no address of {HOST}",
    ] == [finding.text for (finding,) in (ill, plain, down, nowhere)]
    assert {Mark.CROSS} == {finding.mark for (finding,) in (ill, plain, down, nowhere)}


async def test_no_route() -> None:
    """An address that this machine has no way to says nothing about the API."""
    records = f"{HOST}. A 127.0.0.1\n{HOST}. A 255.255.255.255"
    async with serving(None) as port:
        found = await look(f"http://{HOST}:{port}", mode="off", records=records)

    assert [
        (Mark.NOTE, "skipped, because this machine has no route to 255.255.255.255"),
        (Mark.TICK, "it responds at 127.0.0.1"),
    ] == [(finding.mark, finding.text) for finding in found]


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:443"),
        ({"listen": ["[::]:80"]}, "http://[::1]"),
        ({"tls": "acme", "hostname": HOST}, f"https://{HOST}"),
        ({"tls": "acme", "hostname": HOST, "listen": ["0.0.0.0:8443"]}, f"https://{HOST}:8443"),
        (
            {"tls": "off", "hostname": HOST, "url": "https://proxy.example.com/responder"},
            "https://proxy.example.com/responder",
        ),
    ],
)
def test_where_it_is(settings: dict[str, object], url: str) -> None:
    """As clients reach it, as far as the settings know that; else on this machine."""
    assert url == Api.of(ApiSettings.model_validate(settings)).place.url
