"""
HTTP to a CA, with limits added to that of the library. `faults` describes its errors.
"""

from __future__ import annotations

import io
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from acme.client import ClientNetwork
from acme.messages import Error
from josepy.jwa import ES256, ES384, ES512, RS256
from josepy.jwk import JWKEC
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from responder.certificate.accountkey import Key
from responder.errors import Invalid
from responder.files import namedfile

USER_AGENT = f"responder/{version('acme-responder')} acme-python/{version('acme')}"
"""RFC 8555, section 6.1."""

TIMEOUT = 20
"""Seconds that a CA may be silent."""

MAX_RESPONSE = 1 << 20
"""Octets of a reply: a chain of certificates has a few thousand."""

MAX_CA_FILE = 4 << 20
"""Octets of a file of roots: the roots of Debian take a twentieth."""

MAX_REDIRECTS = 3

NONCE_ATTEMPTS = 5
"""Times that a request is sent if its nonce is refused (RFC 8555, section 6.5); CAs forget nonces when they restart."""


class AcmeNetwork(ClientNetwork):
    """
    A session of signed requests. *retry_after* is that of the last reply, in seconds, or None.

    *ca_file* has the root for the HTTPS certificate of a private CA. Raises `Invalid` if the file is invalid.
    """

    def __init__(self, key: Key, ca_file: str) -> None:
        super().__init__(key, alg=_algorithm(key), user_agent=USER_AGENT, timeout=TIMEOUT)
        if ca_file:
            check_roots(ca_file)
            self.verify_ssl = ca_file  # type: ignore[assignment]  # which requests takes as well
        self.retry_after: float | None = None
        self.session.max_redirects = MAX_REDIRECTS
        self.session.headers["Accept-Encoding"] = "identity"  # compressed replies could expand without limit
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _BoundedAdapter())

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(NONCE_ATTEMPTS - 1):
            try:
                return self._post_once(*args, **kwargs)
            except Error as problem:
                if problem.code != "badNonce":
                    raise
                self._nonces.clear()  # the others are as old
        return self._post_once(*args, **kwargs)

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.retry_after = None
        response = super()._send_request(method, url, *args, **kwargs)
        self.retry_after = _seconds(response.headers.get("Retry-After", ""))
        return response


class _BoundedAdapter(HTTPAdapter):
    """Reads at most `MAX_RESPONSE` octets of a reply."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        body = resp.read(MAX_RESPONSE + 1)
        if len(body) > MAX_RESPONSE:
            resp.close()
            raise requests.exceptions.ContentDecodingError("the reply is too large")
        resp.release_conn()
        headers = resp.headers.copy()
        for name in ("Content-Length", "Content-Encoding", "Transfer-Encoding"):
            headers.discard(name)  # they were about the octets on the wire
        read = HTTPResponse(io.BytesIO(body), headers, resp.status, reason=resp.reason, preload_content=False)
        return super().build_response(req, read)


def _algorithm(key: Key) -> Any:
    """How a key signs (RFC 7518, section 3.1)."""
    if isinstance(key, JWKEC):
        return {256: ES256, 384: ES384, 521: ES512}[key.key.curve.key_size]
    return RS256


def check_roots(ca_file: str) -> None:
    """Check that the file has certificates in PEM. Raises `Invalid`."""
    try:
        namedfile.read(Path(ca_file), MAX_CA_FILE)
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise Invalid(f"the CA file {ca_file} holds no certificate in PEM") from None
    except Invalid as fault:
        raise Invalid(f"the CA file {fault}") from None


def _seconds(retry_after: str) -> float | None:
    """A Retry-After field: seconds or a date (RFC 9110, section 10.2.3)."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(retry_after)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    return None
