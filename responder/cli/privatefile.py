"""The private file that `--out` names, for a secret that a command prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from responder.errors import InvalidRequest
from responder.files.atomicfile import NewFile, new_file
from responder.foreign import explaining


@contextmanager
def private_file(path: Path, *, replace: bool) -> Iterator[Callable[[str], None]]:
    """
    Prepare a file at *path*, so that little can fail later, when the secret exists. Yields the function that writes it.

    Without *replace*, an existing file stays. Both steps raise `InvalidRequest`.
    """

    def unwritable(reason: str) -> InvalidRequest:
        return _refusal(path, f"cannot be written: {reason}")

    with ExitStack() as stack:
        with explaining(unwritable):
            _check(path, replace=replace)
            new = stack.enter_context(new_file(path))

        def write(text: str) -> None:
            with explaining(unwritable):
                new.write(text.encode())
                _put(new, replace=replace)

        yield write


def _check(path: Path, *, replace: bool) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise _refusal(path, "is not a file: choose another path")
    if path.exists() and not replace:
        raise _refusal(path, "the file exists: add --force to replace it")


def _put(new: NewFile, *, replace: bool) -> None:
    if replace:
        new.replace()
        return
    try:
        is_there = not new.add()
    except OSError:  # the file system has no hard links
        _check(new.path, replace=False)
        new.replace()
        return
    if is_there:
        raise _refusal(new.path, "cannot be written: file exists")


def _refusal(path: Path, fault: str) -> InvalidRequest:
    return InvalidRequest([f"--out {path}: {fault}"])
