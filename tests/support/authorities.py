"""
An HTTPS server in the place of a CA, or in front of one: it passes on what it gets, or answers as CAs do on bad days.

    client --HTTPS--> Front --HTTPS--> a real CA
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from responder.tls.keypair import KeyPair
from tests.support.keypairs import key_pair
from tests.support.processes import PATIENCE

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answers. *body* is JSON unless it is octets."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


HTML = Answer(502, b"<html><h1>Bad Gateway</h1></html>", {"Content-Type": "text/html; charset=utf-8"})
HTML_OK = Answer(200, b"<html>Welcome!</html>", {"Content-Type": "text/html"})


def problem(status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
    """A problem document of ACME."""
    document = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status, **more}
    return Answer(status, document, {"Content-Type": "application/problem+json", **(headers or {})})


Override = Callable[[str, str], Answer | None]
"""What to answer to a method and a path; None passes the request on."""


@dataclass
class Front:
    """The server. *override* answers in the CA's place; *renewal_window* makes it offer renewal information."""

    url: str
    ca_file: Path
    behind: str | None = None
    behind_ca_file: Path | None = None
    override: Override = lambda _method, _path: None
    renewal_window: tuple[datetime, datetime] | None = None
    retry_after: str = "21600"
    hang: threading.Event = field(default_factory=threading.Event)
    """Set, unless requests are to hang."""
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def directory_url(self) -> str:
        return f"{self.url}/dir"

    def dally_after(self, path: str) -> None:
        """Pass on a request for a path that starts so, and no other after it until the CA is to `recover`."""
        self.override = lambda _method, asked: self.hang.clear() if asked.startswith(path) else None

    def recover(self) -> None:
        """Pass on everything again, and what hangs first."""
        self.override = lambda _method, _path: None
        self.hang.set()

    def asked(self, path: str) -> int:
        """How many requests came for paths that start so."""
        return sum(asked.startswith(path) for _, asked, _ in self.requests)

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.requests.append((method, path, body))
        self.hang.wait()
        answer = self.override(method, path)
        if answer is None and path.startswith("/renewal-info/") and self.renewal_window is not None:
            start, end = (moment.isoformat().replace("+00:00", "Z") for moment in self.renewal_window)
            window = {"suggestedWindow": {"start": start, "end": end}}
            answer = Answer(200, window, {"Content-Type": "application/json", "Retry-After": self.retry_after})
        answer = answer or self._forward(method, path, headers, body)
        if path == "/dir" and answer.status == 200 and self.renewal_window is not None:
            directory = json.loads(answer.content) | {"renewalInfo": f"{self.url}/renewal-info"}
            answer = Answer(200, directory, answer.headers)
        return answer

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert self.behind is not None, f"nobody answers {method} {path}"
        context = ssl.create_default_context(cafile=str(self.behind_ca_file))
        connection = HTTPSConnection(urlsplit(self.behind).netloc, timeout=PATIENCE, context=context)
        try:
            connection.request(method, path, body or None, dict(headers))  # its Host too: a CA makes its URLs of it
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        names = [name for name in response.headers if name.lower() not in HOP_BY_HOP]
        together = {name: ", ".join(response.headers.get_all(name, [])) for name in names}
        return Answer(response.status, content, together)


@contextmanager
def fronting(
    directory: Path, *, behind: str | None = None, behind_ca_file: Path | None = None, pair: KeyPair | None = None
) -> Iterator[Front]:
    """A server at a port of its own, with this *pair*, before the CA whose URL is *behind* if there is one."""
    pair = pair or key_pair("localhost")
    certificate, ca_file = directory / "front.pem", directory / "front.crt"
    certificate.write_bytes(pair.chain + pair.key)
    ca_file.write_bytes(pair.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.front = Front(f"https://localhost:{server.server_address[1]}", ca_file, behind, behind_ca_file)
    server.front.hang.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.front
    finally:
        server.front.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    front: Front

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.front.answer(self.command, self.path, dict(self.headers.items()), body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815  # the library's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
        pass
