"""
What cert-manager asks for, done: the issuer's config, the token from the Secret it names, one call of the API.

It keeps nothing. A token is read from the namespace that the challenge belongs to, so that one team's issuer cannot
touch another team's names.
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
from responder.tokens.secret import PREFIX
from responder.webhook.cluster import Cluster
from responder.webhook.issuer import IssuerConfig, PlainHttp, SecretKey
from responder.webhook.payload import Action, ChallengeRequest
from responder.webhook.service import Challenge, Endpoint, Service, Verb

LIFETIME = 3_600
"""
Seconds after which a value expires that nobody cleans up, because its namespace was deleted and the Secret with it. By
then cert-manager has had the CA look for it, or has failed: it takes some minutes.
"""

LOOK = 2.0
"""Seconds for the look whether a value is still there."""

TOKEN = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{16,256}")
"""A token of ours, and nothing else: whoever may write an issuer may name any Secret of the namespace, and any URL."""

_log = structlog.get_logger("webhook")


class Solver:
    """Presents challenge values and cleans them up."""

    def __init__(
        self,
        cluster: Cluster,
        service: Service,
        *,
        plain_http: PlainHttp,
        reads_challenges: bool,
        resolver: dns.asyncresolver.Resolver | None = None,
    ) -> None:
        """*reads_challenges* is for tokens pinned to an ACME account. Without *resolver*, it is the system's."""
        self._cluster = cluster
        self._service = service
        self._plain_http = plain_http
        self._reads_challenges = reads_challenges
        self._resolver = resolver

    async def solve(self, request: ChallengeRequest) -> None:
        """Do what is asked. Raises what `ResponderError` says why not, in words that stay the same."""
        match request.action:
            case Action.PRESENT:
                await self._ask("present", request, request.fqdn)
            case Action.CLEANUP:
                await self._cleanup(request)
            case _:
                assert_never(request.action)

    async def _cleanup(self, request: ChallengeRequest) -> None:
        """
        An error here keeps the Challenge, and so its namespace, from going. There is none if nothing is left that this
        token could clean up: in a namespace that is deleted, the Secret and the right to read it go first. A value that
        stays all the same expires.
        """
        try:
            await self._cleanup_any(request)
        except (Invalid, Refused, NotFound) as reason:
            _log.warning("nothing left to clean up with", hostname=request.dns_name, reason=str(reason))
        except Unavailable:
            if not await self._is_gone(request):
                raise

    async def _cleanup_any(self, request: ChallengeRequest) -> None:
        """A CNAME that has moved since leads elsewhere; the hostname's own name still means the token's grant."""
        try:
            await self._ask("cleanup", request, request.fqdn)
        except RefusedByApi as refusal:
            if refusal.kind != "not-covered" or _same(request.fqdn, request.delegated_name):
                raise
            await self._ask("cleanup", request, request.delegated_name)

    async def _ask(self, verb: Verb, request: ChallengeRequest, fqdn: str) -> None:
        config = IssuerConfig.parse(request.config, self._plain_http)
        endpoint = Endpoint(config.url, config.trust)
        secret = f"Secret {request.namespace}/{config.token.name}"
        token = _token(await self._secret(request.namespace, config.token, secret), config.token, secret)
        lifetime = LIFETIME if verb == "present" else None
        challenge = Challenge(fqdn=fqdn, value=request.value, lifetime=lifetime)
        try:
            await self._call(verb, endpoint, token, challenge, request)
        except RefusedByApi as refusal:
            where = f"{secret}, key {config.token.key}: {endpoint.name} says"
            raise RefusedByApi(refusal.kind, f"{where}: {refusal}{self._mend(refusal.kind, request)}") from None
        _log.info(verb, hostname=request.dns_name, namespace=request.namespace, secret=config.token.name)

    async def _call(
        self, verb: Verb, endpoint: Endpoint, token: str, challenge: Challenge, request: ChallengeRequest
    ) -> None:
        try:
            await self._service.ask(endpoint, verb, token, challenge)
        except RefusedByApi as refusal:
            if refusal.kind == "invalid-request" and challenge.lifetime is not None:
                # The responder may allow shorter lifetimes only (values.max_lifetime).
                return await self._call(verb, endpoint, token, replace(challenge, lifetime=None), request)
            if refusal.kind != "pinned" or not self._reads_challenges:
                raise
            proven = replace(challenge, acme_token=await self._acme_token(request))
            await self._service.ask(endpoint, verb, token, proven)

    def _mend(self, kind: str, request: ChallengeRequest) -> str:
        """What the API cannot know about a refusal: how cert-manager and the webhook are set up."""
        if kind == "pinned" and not self._reads_challenges:
            return ": let the webhook read Challenges (--read-challenges), which hold that token"
        if kind != "not-covered":
            return ""
        mend = f": let it cover {request.dns_name} (responder token allow), or "
        if _same(request.fqdn, request.delegated_name):
            return f"{mend}set cnameStrategy: Follow in the issuer if {request.fqdn} is a CNAME to a name it covers"
        return f"{mend}point the CNAME of {request.delegated_name} at a name it covers"

    async def _secret(self, namespace: str, ref: SecretKey, secret: str) -> Mapping[str, bytes]:
        try:
            return await self._cluster.secret(namespace, ref.name)
        except NotFound:
            raise NotFound(
                f"{secret} does not exist: create it with the token under the key {ref.key} (responder token mint)"
            ) from None
        except Forbidden as refusal:
            raise Forbidden(
                f"the webhook may not read {secret}: let its ServiceAccount get that Secret ({refusal})"
            ) from None

    async def _acme_token(self, request: ChallengeRequest) -> str:
        """ACME's own token of the one Challenge that this request is for; the request does not name it."""
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
        """Whether the DNS shows that the value is not there. If it shows nothing at all, nobody knows."""
        with suppress(dns.exception.DNSException, OSError):
            resolver = self._resolver or dns.asyncresolver.Resolver()
            try:
                answer = await resolver.resolve(
                    request.fqdn, "TXT", lifetime=LOOK, search=False, raise_on_no_answer=False
                )
            except dns.resolver.NXDOMAIN:
                return True
            return request.value.encode() not in {b"".join(rdata.strings) for rdata in answer.rrset or ()}
        return False


def _token(data: Mapping[str, bytes], ref: SecretKey, secret: str) -> str:
    """The token under the key of the Secret that *ref* names. Nothing of what is there instead is told."""
    if ref.key not in data:
        raise NotFound(f"{secret} has no key {ref.key}: put the token there, or mend tokenSecretRef in the issuer")
    token = data[ref.key].decode(errors="replace").strip()
    if not TOKEN.fullmatch(token):
        fault = f"this is no token: put all of {PREFIX}... there, as responder token mint printed it"
        raise InvalidConfiguration([f"{secret}, key {ref.key}: {fault}"])
    return token


def _same(one: str, other: str) -> bool:
    """Whether two names are one in the DNS (RFC 4343)."""
    return one.lower() == other.lower()
