"""A certificate from files: read at the start, followed when it changes, and kept when what comes is broken."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from responder.api.tls import ServerTls
from responder.certificate import files as module
from responder.certificate.files import Files
from responder.config import ApiSettings
from responder.errors import Invalid
from responder.tls.keypair import KeyPair
from tests.support.keypairs import HOUR, key_pair
from tests.support.processes import eventually

HOST = "api.acme.example.com"


@dataclass
class Pair:
    """Two files, who follows them, and what came of it."""

    directory: Path
    used: list[KeyPair] = field(default_factory=list)
    logs: list[structlog.typing.EventDict] = field(default_factory=list)
    tls: ServerTls = field(default_factory=lambda: ServerTls(key_pair("first.example.com")))

    @property
    def files(self) -> Files:
        settings = {
            "tls": "files",
            "hostname": HOST,
            "certificate_file": str(self.directory / "tls.crt"),
            "private_key_file": str(self.directory / "tls.key"),
        }
        return Files(ApiSettings.model_validate(settings), self._use)

    def _use(self, pair: KeyPair) -> None:
        self.tls.use(pair)
        self.used.append(pair)

    def write(self, pair: KeyPair) -> None:
        self.write_certificate(pair.chain)
        self.write_key(pair.key)

    def write_certificate(self, content: bytes) -> None:
        self._replace("tls.crt", content)

    def write_key(self, content: bytes) -> None:
        self._replace("tls.key", content)

    def replace_key_by_a_pipe(self) -> None:
        """Nobody ever writes into it."""
        os.mkfifo(self.directory / "new")
        (self.directory / "new").rename(self.directory / "tls.key")

    def _replace(self, name: str, content: bytes) -> None:
        (self.directory / "new").write_bytes(content)
        (self.directory / "new").rename(self.directory / name)

    def reports(self, event: str) -> list[str]:
        return [entry.get("reason", "") for entry in self.logs if event in entry["event"]]

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        files = self.files
        await files.load()
        task = asyncio.create_task(files.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(module, "LOOK_INTERVAL", 0.01)
    with structlog.testing.capture_logs() as logs:
        yield Pair(tmp_path, logs=logs)


async def test_files_that_change(pair: Pair) -> None:
    """The pair is used when it was read, and again when both files were replaced."""
    first, second = key_pair(HOST), key_pair(HOST)
    pair.write(first)

    async with pair.followed():
        assert [first] == pair.used
        pair.write(second)
        await eventually(lambda: len(pair.used) > 1, "the second pair is used")

    assert [first, second] == pair.used
    assert [] == pair.reports("cannot be used")


async def test_a_link_to_another_directory(pair: Pair) -> None:
    """A pair that is replaced by turning a link, as in a Kubernetes Secret, is noticed as well."""
    first, second = key_pair(HOST), key_pair(HOST)
    for name, content in (("1", first), ("2", second)):
        (pair.directory / name).mkdir()
        (pair.directory / name / "tls.crt").write_bytes(content.chain)
        (pair.directory / name / "tls.key").write_bytes(content.key)
    data = pair.directory / "data"
    data.symlink_to("1")
    for name in ("tls.crt", "tls.key"):
        (pair.directory / name).symlink_to(f"data/{name}")

    async with pair.followed():
        (pair.directory / "turned").symlink_to("2")
        (pair.directory / "turned").rename(data)
        await eventually(lambda: len(pair.used) > 1, "the second pair is used")

    assert [first, second] == pair.used


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (
            lambda pair: pair.write_key(key_pair(HOST).key),
            (
                "the private key does not belong to the certificate: use the key that it was issued for: "
                "see api.certificate_file and api.private_key_file"
            ),
        ),
        (
            lambda pair: pair.write_certificate(b"nonsense"),
            (
                "the certificate file has no certificate in PEM, or a damaged one: "
                "see api.certificate_file and api.private_key_file"
            ),
        ),
        (
            lambda pair: pair.write(key_pair(HOST, key=rsa.generate_private_key(65537, 1024))),
            "TLS cannot use the certificate: ee key too small",
        ),
        (
            lambda pair: (pair.directory / "tls.key").unlink(),
            "api.private_key_file: {directory}/tls.key: cannot be read: no such file or directory",
        ),
        (
            lambda pair: pair.replace_key_by_a_pipe(),
            "api.private_key_file: {directory}/tls.key: cannot be read: it is not a file",
        ),
        (
            lambda pair: pair.write_certificate(b"-" * (module.MAX_FILE + 1)),
            "api.certificate_file: {directory}/tls.crt: cannot be read: it is longer than 1024 KiB",
        ),
    ],
    ids=["no pair", "no certificate", "weak", "gone", "pipe", "huge"],
)
async def test_files_that_break(pair: Pair, break_it: object, reason: str) -> None:
    """What is broken is reported once, the old pair stays in use, and what is mended is used."""
    assert callable(break_it)
    first, second = key_pair(HOST), key_pair(HOST)
    pair.write(first)

    async with pair.followed():
        break_it(pair)
        await eventually(lambda: pair.reports("cannot be used"), "it is reported")
        await asyncio.sleep(0.1)
        assert [first] == pair.used
        assert first.leaf == pair.tls.pair.leaf
        pair.write(second)
        await eventually(lambda: len(pair.used) > 1, "the mended pair is used")

    assert [reason.format(directory=pair.directory)] == pair.reports("cannot be used")


async def test_a_start_with_broken_files(pair: Pair) -> None:
    """A process that is started again beside broken files says so at once, and waits for better ones."""
    with pytest.raises(Invalid, match=r"^api\.certificate_file: .*: cannot be read"):
        pair.files.read()

    async with pair.followed():
        assert 1 == len(pair.reports("cannot be used"))
        assert [] == pair.used
        pair.write(first := key_pair(HOST))
        await eventually(lambda: pair.used, "the pair is used")

    assert [first] == pair.used


async def test_a_certificate_that_has_expired(pair: Pair) -> None:
    """An expired certificate is used: it is better than none."""
    pair.write(key_pair(HOST, lifetime=HOUR / 2))
    await pair.files.load()

    assert 1 == len(pair.used)
