"""HAProxy in front of the API, as a proxy of TCP that speaks the PROXY protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import is_free

from .programs import require, running

_CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
"""


@contextmanager
def haproxy(directory: Path, frontends: Mapping[int, str], backend: int) -> Iterator[None]:
    """
    Passes connections on to the port *backend*, until the block ends.

    *frontends* are ports, and the options of the server behind each: `send-proxy` or `send-proxy-v2`, with checks.
    """
    path = directory / "haproxy.cfg"
    sections = "".join(
        f"listen port{port}\n    bind 127.0.0.1:{port}\n    server api 127.0.0.1:{backend} {options}\n"
        for port, options in frontends.items()
    )
    path.write_text(_CONFIGURATION + sections)
    with running([require("haproxy"), "-db", "-f", str(path)], directory) as program:
        program.wait_until_ready(lambda: not any(map(is_free, frontends)))
        yield
