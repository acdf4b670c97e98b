"""The certificate of the API from files that another program renews: they are read at the start, and after changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from responder.config import ApiSettings
from responder.errors import Invalid
from responder.files import namedfile
from responder.tls.keypair import KeyPair

LOOK_INTERVAL = 2.0
"""Seconds between two looks at the files."""

MAX_FILE = 1 << 20
"""Octets of a file: far more than a chain has."""

_log = structlog.get_logger("certificate")


class Files:
    """Passes the key pair in the files of *api* to *use*, which raises `Invalid` if TLS cannot use it."""

    def __init__(self, api: ApiSettings, use: Callable[[KeyPair], None]) -> None:
        self._certificate, self._key = Path(api.certificate_file), Path(api.private_key_file)
        self._use = use
        self._settled: object = None  # the state of the files that were used or reported
        self._broken: object = None

    def read(self) -> KeyPair:
        """The pair in the files. Raises `Invalid`, naming the setting."""
        chain = _read(self._certificate, "api.certificate_file")
        key = _read(self._key, "api.private_key_file")
        try:
            return KeyPair.parse(chain, key)
        except Invalid as fault:
            raise Invalid(f"{fault}: see api.certificate_file and api.private_key_file") from None

    async def load(self) -> None:
        """Use the files as they are; if they are invalid, log that and use nothing."""
        await self._look(patient=False)

    async def run(self) -> None:
        """Use changed files, until cancelled. Invalid files are logged once, and the old pair stays."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            await self._look(patient=True)

    async def _look(self, *, patient: bool) -> None:
        state = _state(self._certificate), _state(self._key)
        if state == self._settled:
            return
        try:
            pair = await asyncio.to_thread(self.read)
            self._use(pair)
        except Invalid as fault:
            # Two files are not replaced at the same time, so a pair that does not match is read once more.
            if state == self._broken or not patient:
                _log.error("the certificate files cannot be used; going on with what there was", reason=str(fault))
                self._settled = state
            self._broken = state
            return
        self._settled = state
        _log.info("using the certificate files", issuer=pair.issuer, not_after=pair.not_after.isoformat())


def _read(path: Path, setting: str) -> bytes:
    try:
        return namedfile.read(path, MAX_FILE)
    except Invalid as fault:
        raise Invalid(f"{setting}: {fault}") from None


def _state(path: Path) -> object:
    """A value that changes when the file does, or the file that it links to."""
    try:
        found = path.stat()
    except OSError as fault:
        return fault.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
