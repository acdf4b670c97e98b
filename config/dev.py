"""`make run`: mints a first token, serves until Ctrl-C, and prints commands to try as soon as the service is ready."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

RESPONDER = [sys.executable, "-P", "-m", "responder", "--config", "config/dev.toml"]
FIRST_TOKEN = Path(".dev/first-token")

HINTS = """
Zone acme.example.com on 127.0.0.1 port 5300, API on http://127.0.0.1:8053. In another terminal:

  curl -s -H 'Authorization: Bearer {token}' \\
       -d '{{"fqdn": "_acme-challenge.some.example.com.", "value": "hello-from-make-run"}}' \\
       http://127.0.0.1:8053/present

  dig @127.0.0.1 -p 5300 _acme-challenge.some.acme.example.com TXT +short

  curl -s -H 'Authorization: Bearer {token}' \\
       -d '{{"fqdn": "_acme-challenge.some.example.com.", "value": "hello-from-make-run"}}' \\
       http://127.0.0.1:8053/cleanup

The token is kept in {file}. Ctrl-C stops the service; `make clean` deletes everything.
"""


def main() -> None:
    # Ctrl-C ends this program without a traceback, and Python programs that it starts cannot handle it at first.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.umask(0o077)
    FIRST_TOKEN.parent.mkdir(exist_ok=True)
    hints = HINTS.format(token=first_token(), file=FIRST_TOKEN)
    # The service reports that it is ready, as it does to systemd (sd_notify(3)). Only the service keeps the pipe open.
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind("")
    os.environ["NOTIFY_SOCKET"] = f"@{ready.getsockname()[1:].decode()}"
    end, life = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:  # a grandchild: it must not become a child of the service
            os.close(life)
            show_when_ready(hints, ready, end)
        os._exit(0)
    os.wait()
    os.set_inheritable(life, True)
    os.execv(sys.executable, [*RESPONDER, "serve"])  # noqa: S606  # no shell is wanted


def first_token() -> str:
    """The token in the file. If there is no file, a token is minted."""
    if not FIRST_TOKEN.exists():
        mint = ["token", "mint", "some.example.com", "--description", "first token, minted by make run"]
        minted = subprocess.run([*RESPONDER, *mint, "--output", "json"], stdout=subprocess.PIPE)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if minted.returncode != 0:
            sys.exit(minted.returncode)  # the command has printed the reason
        draft = FIRST_TOKEN.with_suffix(".new")
        draft.write_bytes(minted.stdout)
        draft.rename(FIRST_TOKEN)
    return str(json.loads(FIRST_TOKEN.read_text())["token"])


def show_when_ready(hints: str, ready: socket.socket, end: int) -> None:
    """Print *hints* as soon as the service is *ready*. Print nothing if the service ends before (*end*)."""
    readable, _, _ = select.select([ready.fileno(), end], [], [])
    if ready.fileno() in readable and ready.recv(100) == b"READY=1":
        print(hints, flush=True)


if __name__ == "__main__":
    main()
