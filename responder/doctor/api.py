"""
Checks that clients reach the API and trust its certificate, at each address of its host.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509

from responder.addresses import host_text
from responder.config import ApiSettings
from responder.doctor.report import LOG, CheckName, Finding, Mark, cross, note, tick
from responder.doctor.visit import HttpServer, Shown, Visit, visit
from responder.doctor.walk import Walk
from responder.tls.keypair import is_self_signed, issuer, refusal

LATE = 0.2
"""Part of the lifetime that is left when a certificate should have been renewed. Ours is renewed after two thirds."""


@dataclass(frozen=True, slots=True)
class Api:
    """The URL of the API for its clients, and how it gets its certificate (`api.tls`)."""

    place: HttpServer
    mode: str

    @classmethod
    def of(cls, settings: ApiSettings) -> Api:
        """The API of *settings*: at `api.url`, else at `api.hostname`, else at the first address of `api.listen`."""
        local = settings.listen[0].reachable
        host = str(settings.hostname) if settings.hostname is not None else local.host
        scheme, usual = ("http", 80) if settings.tls == "off" else ("https", 443)
        port = "" if local.port == usual else f":{local.port}"
        return cls(HttpServer(settings.url or f"{scheme}://{host_text(host)}{port}"), settings.tls)


async def examine(walk: Walk, api: Api) -> list[Finding]:
    """Request `/health` at each address, and check the certificates."""
    name = api.place.name
    addresses = [api.place.host] if name is None else [str(address) for address in await walk.addresses_of(name)]
    if name is not None and not addresses:
        record = f"{name.fqdn} 3600 IN A <ADDRESS OF THE API>"
        return [
            cross(CheckName.API, f"the resolver finds no address of {name}", "add to the zone that holds it:", record)
        ]
    visits = await asyncio.gather(*(visit(api.place, address, "/health") for address in addresses))
    findings = list(_judge_reach(api, visits))
    shown = {seen.shown.certificate: seen.shown for seen in visits if seen.shown is not None}
    return [*findings, *(_judge_certificate(api, each) for each in shown.values())]


def _judge_reach(api: Api, visits: Sequence[Visit]) -> Iterator[Finding]:
    url = f"{api.place.url}/health"
    command = shlex.join(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url])
    for seen in visits:
        if not seen.unrouted and seen.status != 200:
            yield cross(
                CheckName.API,
                f"at {seen.address} it {seen.wrong or f'responds with status {seen.status}'}",
                "start the service, and open this port in firewalls, load balancers and proxies; then this prints 200:",
                command,
            )
    if away := [seen.address for seen in visits if seen.unrouted]:
        yield note(CheckName.API, f"skipped, because this machine has no route to {', '.join(away)}")
    if good := [seen.address for seen in visits if seen.status == 200]:
        yield tick(CheckName.API, f"it responds at {', '.join(good)}")


def _judge_certificate(api: Api, shown: Shown) -> Finding:
    certificate, now = shown.certificate, datetime.now(UTC)
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if refused := refusal(certificate, api.place.name, now=now):
        return _cross(api, f"clients refuse it: {refused}")
    if api.mode == "acme" and is_self_signed(certificate):
        return _cross(api, "clients refuse it: it is self-signed, because the CA has not issued one yet")
    if _is_late(certificate, now):
        late = _cross(api, f"it expires on {until}, and should have been renewed already")
        return replace(late, mark=Mark.NOTE)
    if shown.distrust:
        text = f"this machine does not trust it ({shown.distrust}); clients that do not trust its issuer refuse it"
        return note(CheckName.CERTIFICATE, text)
    return tick(CheckName.CERTIFICATE, f"issued by {issuer(certificate)}, valid until {until}")


def _cross(api: Api, text: str) -> Finding:
    if api.mode == "acme":
        return cross(
            CheckName.CERTIFICATE, text, "the service renews it; see its log for the reason why that failed:", LOG
        )
    show = f"openssl s_client -connect {api.place.host}:{api.place.port} -servername {api.place.host} </dev/null"
    instruction = "renew it at its source; then this shows the new certificate:"
    return cross(CheckName.CERTIFICATE, text, instruction, f"{show} | openssl x509 -noout -dates")


def _is_late(certificate: x509.Certificate, now: datetime) -> bool:
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < LATE * lifetime
