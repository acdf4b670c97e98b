"""
A client of a responder's API: it sends a request, tries again if need be, and has one stable text for each error.

It quotes only our own problem documents. A user who may write an issuer may choose the URL, and must not be able to
read the responses of other servers through the webhook.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from yarl import URL

from responder.errors import ApiBusy, ApiUnavailable, ApiUntrusted, InvalidConfiguration, RefusedByApi
from responder.foreign import json_object
from responder.tls import distrust

ATTEMPT = 5.0
"""Seconds for one try. A present waits up to 3 s for a nameserver that does not respond."""

DELAYS = (0.5, 1.5)
"""Seconds before the second and the third try. Three tries of `ATTEMPT` and these delays take up to 17 s."""

MAX_RESPONSE = 64 << 10
"""Octets of a response that are read. A response of the API has a few hundred."""

MAX_DETAIL = 1_000
"""Characters of a problem's text that are passed on. An event of Kubernetes has at most 1,024."""

PROBLEM = "urn:responder:problem:"

TRANSIENT = frozenset({408, *range(500, 600)})
"""Statuses after which the same request may succeed if it is repeated at once."""

Verb = Literal["present", "cleanup"]


@dataclass(frozen=True, slots=True)
class RemoteApi:
    """The URL of a responder's API, and the TLS context that verifies its certificate."""

    url: URL
    trust: ssl.SSLContext

    @property
    def name(self) -> str:
        """The name for messages, without the port and the path."""
        return f"the responder at {self.url.raw_host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeBody:
    """The body of a present or cleanup. *acme_token* is ACME's own token, for tokens pinned to an ACME account."""

    fqdn: str
    value: str
    acme_token: str | None = None
    lifetime: int | None = None
    """Seconds until a presented value expires; None means the default of the responder."""

    def members(self) -> dict[str, str | int]:
        optional = {"acme_token": self.acme_token, "lifetime": self.lifetime}
        return {"fqdn": self.fqdn, "value": self.value} | {k: v for k, v in optional.items() if v is not None}


class ApiClient:
    """A client for the APIs of any number of responders."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """A session for the constructor. It keeps no connection open: the next request may come hours later."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, use_dns_cache=False),
            timeout=aiohttp.ClientTimeout(),  # each try has its own
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def ask(self, api: RemoteApi, verb: Verb, token: str, body: ChallengeBody) -> None:
        """
        Present or clean up a value. Failed tries are repeated, because both verbs may be repeated.

        Raises `RefusedByApi`, `ApiUnavailable`, `ApiUntrusted`, and `InvalidConfiguration` if the URL is wrong.
        """
        for delay in DELAYS:
            try:
                return await self._try(api, verb, token, body)
            except ApiBusy:
                raise
            except ApiUnavailable:
                await asyncio.sleep(delay)
        return await self._try(api, verb, token, body)

    async def _try(self, api: RemoteApi, verb: Verb, token: str, body: ChallengeBody) -> None:
        try:
            async with (
                asyncio.timeout(ATTEMPT),
                self._session.post(
                    api.url / verb,
                    json=body.members(),
                    headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
                    ssl=api.trust,
                    allow_redirects=False,
                ) as response,
            ):
                status, octets = response.status, await _read(response)
        except aiohttp.ClientConnectorCertificateError as fault:
            raise _untrusted(api, fault) from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise ApiUnavailable(
                f"{api.name} does not answer: check that it is running, that the issuer's url is correct, that its"
                " host resolves in the cluster, and that no network policy blocks it"
            ) from None
        _judge(api, status, json_object(octets), body)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    octets = bytearray()
    async for chunk in response.content.iter_any():
        octets += chunk
        if len(octets) > MAX_RESPONSE:
            response.close()
            break
    return bytes(octets)


def _judge(api: RemoteApi, status: int, document: dict[str, Any], body: ChallengeBody) -> None:
    """Return if the response reports success; otherwise raise what it means."""
    kind = str(document.get("type", "")).removeprefix(PROBLEM)
    detail = str(document.get("detail", ""))[:MAX_DETAIL]
    is_ours = str(document.get("type", "")).startswith(PROBLEM) and detail.isprintable()
    if status == 200 and document.get("value") == body.value:
        return
    if is_ours and status == 429:
        raise ApiBusy(f"{api.name} limits the rate of requests: {detail}")
    if is_ours and status in TRANSIENT:
        raise ApiUnavailable(f"{api.name} cannot do this now: {detail}")
    if is_ours and kind == "no-such-route":
        raise InvalidConfiguration([f"{api.name} has no API at that path: fix the path in the issuer's url"])
    if is_ours and 400 <= status < 500:
        raise RefusedByApi(kind, detail)
    if 300 <= status < 400:
        raise InvalidConfiguration([f"{api.name} redirects: set the issuer's url to the target of the redirect"])
    if status < 300:
        raise InvalidConfiguration([f"the server at {api.url.raw_host} is not a responder: fix the issuer's url"])
    raise ApiUnavailable(
        f"{api.name} cannot be reached: another server in front of it responds with status {status}: check that"
        " the issuer's url leads to the responder's API"
    )


def _untrusted(api: RemoteApi, fault: aiohttp.ClientConnectorCertificateError) -> ApiUntrusted:
    error = fault.certificate_error
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ApiUntrusted(f"the certificate of {api.name} is not valid: fix the certificate")
    why = distrust.describe(
        error,
        name="fix the issuer's url, or the certificate",
        issuer="add the CA that signed it to caBundle in the issuer's config, or fix the certificate",
    )
    return ApiUntrusted(f"the certificate of {api.name} {why}")
