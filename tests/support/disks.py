"""Small disks: file systems in memory that can be filled up, for tests that run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.requirements import lacking

BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system at *directory*."""

    directory: Path

    def fill(self, *, leave: int = 0) -> None:
        """Use up all that is free but for *leave* octets."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - leave))

    def empty(self) -> None:
        """Give back what `fill` used up."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"


@contextmanager
def mounted(directory: Path, size: str) -> Iterator[Disk]:
    """A disk of that *size* at *directory*, such as "4m"; skips the test where none can be mounted."""
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        lacking("no file system can be mounted (it takes root, and in a container CAP_SYS_ADMIN)")
    try:
        yield Disk(directory)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of four mebibytes."""
    with mounted(tmp_path / "disk", "4m") as disk:
        yield disk
