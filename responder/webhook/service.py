"""
A responder's API, as the webhook calls it: one request with a few tries, and one stable text for whatever comes of it.

Only our own problem documents are quoted. Whoever may write an issuer may choose the URL, and must not get to read
through the webhook what answers there.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from yarl import URL

from responder.errors import ApiBusy, ApiUnavailable, ApiUntrusted, InvalidConfiguration, RefusedByApi
from responder.tls import distrust

ATTEMPT = 5.0
"""Seconds for one try. A present waits up to 3 s for a nameserver that hangs."""

DELAYS = (0.5, 1.5)
"""Seconds before the second and the third try: with three of `ATTEMPT`, 17 s in all."""

MAX_ANSWER = 64 << 10
"""Octets of an answer that are read. An honest one has some hundred."""

MAX_DETAIL = 1_000
"""Characters of a problem's text that are passed on: there are 1,024 in an event of Kubernetes."""

PROBLEM = "urn:responder:problem:"

TRANSIENT = frozenset({408, *range(500, 600)})
"""Statuses after which the same request may succeed at once."""

Verb = Literal["present", "cleanup"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a responder's API is, and how to tell that it is the one."""

    url: URL
    trust: ssl.SSLContext

    @property
    def name(self) -> str:
        """For messages: without a port, and without what only leads there."""
        return f"the responder at {self.url.raw_host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What is asked to be presented, or cleaned up; *acme_token* is ACME's own, for tokens pinned to an account."""

    fqdn: str
    value: str
    acme_token: str | None = None
    lifetime: int | None = None
    """Seconds for which a value is presented; by default, the responder decides."""

    def body(self) -> dict[str, str | int]:
        optional = {"acme_token": self.acme_token, "lifetime": self.lifetime}
        return {"fqdn": self.fqdn, "value": self.value} | {k: v for k, v in optional.items() if v is not None}


class Service:
    """A client for any number of responders."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """A session for the constructor. No connection is kept: the next request may be hours away."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, use_dns_cache=False),
            timeout=aiohttp.ClientTimeout(),  # each try has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def ask(self, endpoint: Endpoint, verb: Verb, token: str, challenge: Challenge) -> None:
        """
        Returns when it is done; both verbs may be repeated, so tries that failed are.

        Raises `RefusedByApi`, `ApiUnavailable`, `ApiUntrusted`, and `InvalidConfiguration` if no responder is there.
        """
        for delay in DELAYS:
            try:
                return await self._try(endpoint, verb, token, challenge)
            except ApiBusy:
                raise
            except ApiUnavailable:
                await asyncio.sleep(delay)
        return await self._try(endpoint, verb, token, challenge)

    async def _try(self, endpoint: Endpoint, verb: Verb, token: str, challenge: Challenge) -> None:
        try:
            async with (
                asyncio.timeout(ATTEMPT),
                self._session.post(
                    endpoint.url / verb,
                    json=challenge.body(),
                    headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
                    ssl=endpoint.trust,
                    allow_redirects=False,
                ) as response,
            ):
                status, octets = response.status, await _read(response)
        except aiohttp.ClientConnectorCertificateError as fault:
            raise _untrusted(endpoint, fault) from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise ApiUnavailable(
                f"{endpoint.name} does not answer: see that it runs, that the issuer's url is right and its name"
                " resolves in the cluster, and that no network policy is in the way"
            ) from None
        _judge(endpoint, status, _parse(octets), challenge)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    octets = bytearray()
    async for chunk in response.content.iter_any():
        octets += chunk
        if len(octets) > MAX_ANSWER:
            response.close()
            break
    return bytes(octets)


def _parse(octets: bytes) -> dict[str, Any]:
    """The JSON object in an answer; an empty one if there is none."""
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _judge(endpoint: Endpoint, status: int, document: dict[str, Any], challenge: Challenge) -> None:
    """Return if *challenge* is done; raise what else the answer means."""
    kind = str(document.get("type", "")).removeprefix(PROBLEM)
    detail = str(document.get("detail", ""))[:MAX_DETAIL]
    is_ours = str(document.get("type", "")).startswith(PROBLEM) and detail.isprintable()
    if status == 200 and document.get("value") == challenge.value:
        return
    if is_ours and status == 429:
        raise ApiBusy(f"{endpoint.name} is asked too often: {detail}")
    if is_ours and status in TRANSIENT:
        raise ApiUnavailable(f"{endpoint.name} cannot do it now: {detail}")
    if is_ours and kind == "no-such-route":
        raise InvalidConfiguration([f"{endpoint.name} has no API at that path: mend the path of the issuer's url"])
    if is_ours and 400 <= status < 500:
        raise RefusedByApi(kind, detail)
    if 300 <= status < 400:
        raise InvalidConfiguration([f"{endpoint.name} redirects: write into the issuer's url where it leads"])
    if status < 300:
        raise InvalidConfiguration([f"what answers at {endpoint.url.raw_host} is no responder: mend the issuer's url"])
    raise ApiUnavailable(
        f"{endpoint.name} cannot be asked: something in front of it answers with status {status}: see that the issuer's"
        " url leads to the responder's API"
    )


def _untrusted(endpoint: Endpoint, fault: aiohttp.ClientConnectorCertificateError) -> ApiUntrusted:
    error = fault.certificate_error
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ApiUntrusted(f"the certificate of {endpoint.name} is not valid: fix the certificate")
    why = distrust.describe(
        error,
        name="fix the issuer's url, or the certificate",
        issuer="put the CA that signed it into caBundle of the issuer's config, or fix the certificate",
    )
    return ApiUntrusted(f"the certificate of {endpoint.name} {why}")
