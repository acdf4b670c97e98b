"""
Sends one request to an HTTP server at one address, and gets its certificate. `api` decides what the response means.
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
from responder.foreign import system_reason
from responder.names import Name

VISIT_DEADLINE = 5.0
"""Seconds for all requests to one address."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpServer:
    """An HTTP server by its *url*, which does not end with a slash."""

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
    """The *certificate* of a server, and why a client with the roots of this machine refuses it, or ""."""

    certificate: x509.Certificate
    distrust: str


@dataclass(frozen=True, slots=True)
class Visit:
    """The HTTP *status*, or what is *wrong*. Without a route (*unrouted*), the server may still be fine."""

    address: str
    status: int = 0
    wrong: str = ""
    unrouted: bool = False
    shown: Shown | None = None


async def visit(place: HttpServer, address: str, path: str) -> Visit:
    """GET *path* of *place* at *address* on a connection without verification; another one verifies the certificate."""
    try:
        async with asyncio.timeout(VISIT_DEADLINE):
            status, certificate = await _get(place, address, path)
            shown = Shown(certificate, await _distrust(place, address)) if certificate is not None else None
    except TimeoutError:
        return Visit(address, wrong="does not respond in time")
    except ssl.SSLError:
        return Visit(address, wrong="does not speak TLS there")
    except OSError as fault:
        reason = os.strerror(fault.errno).lower() if fault.errno else system_reason(fault)
        return Visit(address, wrong=f"cannot be reached ({reason})", unrouted=fault.errno in UNROUTED)
    except (EOFError, asyncio.LimitOverrunError, ValueError, IndexError):
        return Visit(address, wrong="does not respond with HTTP")
    return Visit(address, status, shown=shown)


async def _get(place: HttpServer, address: str, path: str) -> tuple[int, x509.Certificate | None]:
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


async def _distrust(place: HttpServer, address: str) -> str:
    try:
        _, writer = await _connect(place, address, ssl.create_default_context())
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    writer.close()
    return ""


async def _connect(
    place: HttpServer, address: str, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    hostname = place.host if context is not None else None
    return await asyncio.open_connection(address, place.port, ssl=context, server_hostname=hostname)
