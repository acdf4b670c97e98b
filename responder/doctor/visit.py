"""
One request to a server of HTTP at one address, and the certificate that it shows.

What the answer means is decided elsewhere; see `api`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from cryptography import x509

from responder.doctor.questions import UNROUTED
from responder.names import Name

PATIENCE = 5.0
"""Seconds for everything that is asked at one address."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """A server by its *url*, which has no slash at its end."""

    url: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def speaks_tls(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    @property
    def name(self) -> Name | None:
        """The host, unless it is an address. Raises `InvalidName`."""
        try:
            ip_address(self.host)
        except ValueError:
            return Name.parse(self.host)
        return None


@dataclass(frozen=True, slots=True)
class Shown:
    """The *certificate* of a server, and why a client with the roots of this machine refuses it: "" if it does not."""

    certificate: x509.Certificate
    distrust: str


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of it: a *status* of HTTP, or what is *wrong*. An *unrouted* one proves nothing about the server."""

    address: str
    status: int = 0
    wrong: str = ""
    unrouted: bool = False
    shown: Shown | None = None


async def visit(place: Place, address: str, path: str) -> Visit:
    """GET *path* of *place* at *address*, with no trust in its certificate, which is verified in another connection."""
    try:
        async with asyncio.timeout(PATIENCE):
            status, certificate = await _get(place, address, path)
            shown = Shown(certificate, await _distrust(place, address)) if certificate is not None else None
    except TimeoutError:
        return Visit(address, wrong="does not answer in time")
    except ssl.SSLError:
        return Visit(address, wrong="does not speak TLS there")
    except OSError as fault:
        reason = os.strerror(fault.errno).lower() if fault.errno else type(fault).__name__
        return Visit(address, wrong=f"cannot be reached ({reason})", unrouted=fault.errno in UNROUTED)
    except (EOFError, asyncio.LimitOverrunError, ValueError, IndexError):
        return Visit(address, wrong="does not answer with HTTP")
    return Visit(address, status, shown=shown)


async def _get(place: Place, address: str, path: str) -> tuple[int, x509.Certificate | None]:
    reader, writer = await _connect(place, address, _unverified() if place.speaks_tls else None)
    try:
        parts = urlsplit(place.url)
        writer.write(f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        session = writer.get_extra_info("ssl_object")
        octets = session.getpeercert(binary_form=True) if session is not None else None
    finally:
        writer.close()
    return status, x509.load_der_x509_certificate(octets) if octets else None


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _distrust(place: Place, address: str) -> str:
    try:
        _, writer = await _connect(place, address, ssl.create_default_context())
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    writer.close()
    return ""


async def _connect(
    place: Place, address: str, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    hostname = place.host if context is not None else None
    return await asyncio.open_connection(address, place.port, ssl=context, server_hostname=hostname)
