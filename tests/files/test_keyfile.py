"""The key file: made once, whoever comes first, and refused where others could read it."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from responder.errors import CannotStart
from responder.files.keyfile import KEY_OCTETS, read_key

NOBODY = 65_534


def test_made_when_first_needed(tmp_path: Path) -> None:
    """A key that is not there is made, with its directory, for its owner alone; afterwards it is always the same."""
    path = tmp_path / "new" / "tsig.key"

    key = read_key(path)

    assert KEY_OCTETS == len(key)
    assert key == base64.b64decode(path.read_text())
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert [path] == list(path.parent.iterdir())
    assert key == read_key(path)
    assert key != read_key(tmp_path / "another.key")


def test_a_new_one_is_reported(tmp_path: Path) -> None:
    """Whoever did not expect that hears of it, once."""
    made: list[str] = []
    for _ in range(2):
        read_key(tmp_path / "tsig.key", on_new=lambda: made.append("new"))
    assert ["new"] == made


def test_made_by_many_at_once(tmp_path: Path) -> None:
    """Of many who make it at the same time one wins, and all read that one's."""
    path = tmp_path / "tsig.key"
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: read_key(path), range(64)))

    assert {base64.b64decode(path.read_text())} == keys
    assert [path] == list(tmp_path.iterdir())


def test_made_by_openssl(tmp_path: Path) -> None:
    """The text that the documentation has people make is a key."""
    path = tmp_path / "tsig.key"
    path.touch(0o600)
    path.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")

    assert bytes(range(32)) == read_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_made_by_root(tmp_path: Path) -> None:
    """What an administrator's command makes belongs to the service, whose directory it is."""
    os.chown(tmp_path, NOBODY, NOBODY)

    read_key(tmp_path / "tsig.key")

    status = (tmp_path / "tsig.key").stat()
    assert (NOBODY, NOBODY, 0o600) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_open_to_others(tmp_path: Path, mode: int) -> None:
    """A key that others can read or write is refused, with the command that mends it."""
    path = tmp_path / "tsig.key"
    read_key(path)
    path.chmod(mode)

    with pytest.raises(CannotStart, match=f"is open to other users: chmod 600 {path}"):
        read_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root's")
@pytest.mark.parametrize(("mode", "good"), [(0o640, True), (0o440, True), (0o644, False), (0o660, False)])
def test_of_root(tmp_path: Path, mode: int, good: bool) -> None:  # noqa: FBT001
    """One that root lets the service's group read, as Kubernetes mounts a Secret, is good; no other has to be there."""
    path = tmp_path / "tsig.key"
    key = read_key(path)
    os.chown(path, 0, NOBODY)
    path.chmod(mode)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o777 == 0o700:  # those that pytest made
            directory.chmod(0o755)

    with as_nobody():
        if good:
            assert key == read_key(path)
        else:
            with pytest.raises(CannotStart, match="is open to other users"):
                read_key(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """For as long as this lasts, files are opened by a user without privileges, in the group of that user."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", base64.b64encode(bytes(33)).decode(), "A" * 5000])
def test_not_a_key(tmp_path: Path, text: str) -> None:
    """What is no key is refused rather than replaced: it may be the place of one that was lost."""
    path = tmp_path / "tsig.key"
    path.touch(0o600)
    path.write_text(text)

    with pytest.raises(CannotStart, match="does not hold 32 octets in base64"):
        read_key(path)

    assert text == path.read_text()


def test_not_a_file(tmp_path: Path) -> None:
    """A directory or a pipe is no key file, and nobody waits for one to be written to."""
    os.mkfifo(tmp_path / "pipe", 0o600)

    with pytest.raises(CannotStart, match="is not a file"):
        read_key(tmp_path / "pipe")
    with pytest.raises(CannotStart, match=r"is not a file|is a directory"):
        read_key(tmp_path)


def test_unreachable(tmp_path: Path) -> None:
    """Where it cannot be made, the reason is told, and what to look at."""
    (tmp_path / "file").touch()

    with pytest.raises(CannotStart, match=r"file exists: check|not a directory: check"):
        read_key(tmp_path / "file" / "tsig.key")
