"""Presents challenge values through the HTTP API of the service, as ACME clients do."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from responder.certificate.authority import Challenge
from responder.errors import Refused, Unavailable
from responder.foreign import json_object
from responder.tls import distrust
from responder.tokens.secret import Secret

REQUEST_TIMEOUT = 30.0
"""Seconds for one request: a present waits a few of them for nameservers."""

MAX_REPLY = 64 << 10
"""Octets of a reply that are read."""

ATTEMPTS = 3
"""Attempts for a request while the service is unavailable. All requests may be repeated."""

PAUSE = 2.0
"""Seconds between them."""


class RemoteSolver:
    """Presents and cleans up with a token, at an API. Get one from `solving`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, lifetime: int) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._lifetime = lifetime

    async def check(self) -> None:
        """Check that the API responds, and accepts the token. Raises `Unavailable` or `Refused`."""
        await self._request("GET", "/v1/token")

    async def present(self, challenge: Challenge) -> str:
        reply = await self._request("POST", "/present", _body(challenge) | {"lifetime": self._lifetime})
        return str(reply.get("challenge_name", "")).removesuffix(".")

    async def cleanup(self, challenge: Challenge) -> None:
        await self._request("POST", "/cleanup", _body(challenge))

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The response of the API. Raises `Refused` or `Unavailable`, with its text."""
        for attempt in range(ATTEMPTS):
            try:
                async with self._session.request(method, self._url + path, json=body) as response:
                    status, reply = response.status, json_object(await _read(response))
            except (aiohttp.ClientError, OSError, TimeoutError) as fault:
                raise Unavailable(f"the API at {self._url} cannot be used: {_why(fault)}") from None
            if status < 400:
                return reply
            if status < 500:
                break
            if attempt < ATTEMPTS - 1:
                await asyncio.sleep(PAUSE)
        kind = Refused if status < 500 else Unavailable
        raise kind(f"the API at {self._url} reports: {reply.get('detail') or f'status {status}'}")


@asynccontextmanager
async def solving(
    url: str, secret: Secret, *, lifetime: int, trust_anybody: bool = False
) -> AsyncIterator[RemoteSolver]:
    """
    A solver that uses the API at *url*; its values expire after *lifetime* seconds.

    *trust_anybody* is for an API on this machine, whose certificate is for the host name that other clients use.
    """
    timeout = aiohttp.ClientTimeout(REQUEST_TIMEOUT)
    connector = aiohttp.TCPConnector(ssl=not trust_anybody)
    headers = {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        yield RemoteSolver(session, url, lifetime)


def _body(challenge: Challenge) -> dict[str, Any]:
    fqdn = f"_acme-challenge.{challenge.hostname}."
    return {"fqdn": fqdn, "value": challenge.value, "acme_token": challenge.acme_token}


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    while len(content) < MAX_REPLY and (more := await response.content.read(MAX_REPLY)):
        content += more
    return content


def _why(fault: Exception) -> str:
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        fault = fault.certificate_error
    match fault:
        case TimeoutError():
            return "it does not respond in time"
        case ssl.SSLCertVerificationError():
            issuer = "use a certificate of a public CA (api.tls), or add its issuer to the CAs of this machine"
            return f"its certificate {distrust.describe(fault, name='check --url', issuer=issuer)}"
        case aiohttp.ClientSSLError():
            return "it does not speak TLS there: check --url"
        case aiohttp.ClientConnectorError():
            number = fault.os_error.errno  # its text is asyncio's, and repeats the address
            reason = os.strerror(number) if number else "it cannot be reached"
            return f"{reason.lower()}: check that the service runs, and --url"
        case _:
            return "it does not respond like the API: check --url"
