"""
Solves the challenges of cert-manager: reads the issuer's config, reads the token from its Secret, and calls the API.

It stores nothing. A token is read from the namespace of the challenge, so that the issuer of one team cannot change the
names of another team.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import assert_never

import dns.asyncresolver
import dns.exception
import dns.resolver
import structlog

from responder.errors import Forbidden, Invalid, InvalidConfiguration, NotFound, Refused, RefusedByApi, Unavailable
from responder.tokens.secret import SECRET_PREFIX
from responder.webhook.cluster import Cluster
from responder.webhook.issuer import IssuerConfig, PlainHttp, SecretKey
from responder.webhook.payload import Action, ChallengeRequest
from responder.webhook.service import ApiClient, ChallengeBody, RemoteApi, Verb

VALUE_LIFETIME = 3_600
"""
Seconds until a value expires if it is not cleaned up, because its namespace was deleted together with the Secret. This
is long enough: cert-manager and the CA need a few minutes to validate the value.
"""

DNS_DEADLINE = 2.0
"""Seconds for the DNS query that checks whether a value still exists."""

TOKEN = re.compile(re.escape(SECRET_PREFIX) + r"[A-Za-z0-9_-]{16,256}")
"""The form of our tokens. No other text is sent: an issuer may name any Secret of its namespace, and any URL."""

_log = structlog.get_logger("webhook")


class WebhookSolver:
    """Presents challenge values and cleans them up."""

    def __init__(
        self,
        cluster: Cluster,
        api_client: ApiClient,
        *,
        plain_http: PlainHttp,
        reads_challenges: bool,
        resolver: dns.asyncresolver.Resolver | None = None,
    ) -> None:
        """*reads_challenges* is for tokens pinned to an ACME account. Without *resolver*, the system's one is used."""
        self._cluster = cluster
        self._api_client = api_client
        self._plain_http = plain_http
        self._reads_challenges = reads_challenges
        self._resolver = resolver

    async def solve(self, request: ChallengeRequest) -> None:
        """Present or clean up the value. Raises `ResponderError`, with a text that is the same after each try."""
        match request.action:
            case Action.PRESENT:
                await self._ask("present", request, request.fqdn)
            case Action.CLEANUP:
                await self._cleanup(request)
            case _:
                assert_never(request.action)

    async def _cleanup(self, request: ChallengeRequest) -> None:
        """
        Clean up the value. An error keeps the Challenge, and so its namespace, from being deleted. So there is no error
        if this token cannot clean up anything: when a namespace is deleted, the Secret and the permission to read it
        may be deleted first. A value that remains expires later.
        """
        try:
            await self._cleanup_any(request)
        except (Invalid, Refused, NotFound) as reason:
            _log.warning("cannot clean up; the value will expire", hostname=request.dns_name, reason=str(reason))
        except Unavailable:
            if not await self._is_gone(request):
                raise

    async def _cleanup_any(self, request: ChallengeRequest) -> None:
        """Clean up by the name that was presented, or by the hostname's own name if its CNAME has changed since."""
        try:
            await self._ask("cleanup", request, request.fqdn)
        except RefusedByApi as refusal:
            if refusal.kind != "not-covered" or _same(request.fqdn, request.delegated_name):
                raise
            await self._ask("cleanup", request, request.delegated_name)

    async def _ask(self, verb: Verb, request: ChallengeRequest, fqdn: str) -> None:
        config = IssuerConfig.parse(request.config, self._plain_http)
        api = RemoteApi(config.url, config.trust)
        secret = f"Secret {request.namespace}/{config.token.name}"
        token = _token(await self._secret(request.namespace, config.token, secret), config.token, secret)
        lifetime = VALUE_LIFETIME if verb == "present" else None
        body = ChallengeBody(fqdn=fqdn, value=request.value, lifetime=lifetime)
        try:
            await self._call(verb, api, token, body, request)
        except RefusedByApi as refusal:
            where = f"{secret}, key {config.token.key}: {api.name} refuses"
            raise RefusedByApi(refusal.kind, f"{where}: {refusal}{self._fix(refusal.kind, request)}") from None
        _log.info(verb, hostname=request.dns_name, namespace=request.namespace, secret=config.token.name)

    async def _call(
        self, verb: Verb, api: RemoteApi, token: str, body: ChallengeBody, request: ChallengeRequest
    ) -> None:
        try:
            await self._api_client.ask(api, verb, token, body)
        except RefusedByApi as refusal:
            if refusal.kind == "invalid-request" and body.lifetime is not None:
                # The responder may allow only shorter lifetimes (values.max_lifetime).
                return await self._call(verb, api, token, replace(body, lifetime=None), request)
            if refusal.kind != "pinned" or not self._reads_challenges:
                raise
            proven = replace(body, acme_token=await self._acme_token(request))
            await self._api_client.ask(api, verb, token, proven)

    def _fix(self, kind: str, request: ChallengeRequest) -> str:
        """How to fix a refusal in cert-manager or the webhook, which the API does not know."""
        if kind == "pinned" and not self._reads_challenges:
            return ": let the webhook read Challenges (--read-challenges), which have that token"
        if kind != "not-covered":
            return ""
        fix = f": let it cover {request.dns_name} (responder token allow), or "
        if _same(request.fqdn, request.delegated_name):
            return f"{fix}set cnameStrategy: Follow in the issuer if {request.fqdn} is a CNAME to a name it covers"
        return f"{fix}point the CNAME of {request.delegated_name} at a name it covers"

    async def _secret(self, namespace: str, ref: SecretKey, secret: str) -> Mapping[str, bytes]:
        try:
            return await self._cluster.secret(namespace, ref.name)
        except NotFound:
            raise NotFound(
                f"{secret} does not exist: create it, with the token under the key {ref.key} (responder token mint)"
            ) from None
        except Forbidden as refusal:
            raise Forbidden(
                f"the webhook may not read {secret}: let its ServiceAccount get that Secret ({refusal})"
            ) from None

    async def _acme_token(self, request: ChallengeRequest) -> str:
        """ACME's own token from the Challenge of this request; the request itself does not have it."""
        try:
            specs = await self._cluster.challenges(request.namespace)
        except Forbidden as refusal:
            raise Forbidden(
                f"the webhook may not list the Challenges in namespace {request.namespace}, which a token pinned to an"
                f" ACME account needs: give its ServiceAccount that right ({refusal})"
            ) from None
        for spec in specs:
            if (spec.get("dnsName"), spec.get("key")) == (request.dns_name, request.value) and spec.get("token"):
                return str(spec["token"])
        raise NotFound(
            f"there is no Challenge for {request.dns_name} in namespace {request.namespace}, which a token pinned to an"
            " ACME account needs: use an Issuer in the Certificate's own namespace, not a ClusterIssuer"
        )

    async def _is_gone(self, request: ChallengeRequest) -> bool:
        """Whether the DNS shows that the value does not exist. False if the query fails."""
        with suppress(dns.exception.DNSException, OSError):
            resolver = self._resolver or dns.asyncresolver.Resolver()
            try:
                found = await resolver.resolve(
                    request.fqdn, "TXT", lifetime=DNS_DEADLINE, search=False, raise_on_no_answer=False
                )
            except dns.resolver.NXDOMAIN:
                return True
            return request.value.encode() not in {b"".join(rdata.strings) for rdata in found.rrset or ()}
        return False


def _token(data: Mapping[str, bytes], ref: SecretKey, secret: str) -> str:
    """The token in a Secret, under the key of *ref*. Errors quote nothing of the Secret."""
    if ref.key not in data:
        raise NotFound(f"{secret} has no key {ref.key}: put the token there, or fix tokenSecretRef in the issuer")
    token = data[ref.key].decode(errors="replace").strip()
    if not TOKEN.fullmatch(token):
        fix = f"put the whole token there ({SECRET_PREFIX}...), as responder token mint printed it"
        raise InvalidConfiguration([f"{secret}, key {ref.key}: the value is not a token: {fix}"])
    return token


def _same(one: str, other: str) -> bool:
    """Whether two names are equal in the DNS, where letter case does not matter (RFC 4343)."""
    return one.lower() == other.lower()
