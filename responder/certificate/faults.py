"""Describes the errors of a CA in one line, with how to fix them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from acme import errors, messages
from josepy.errors import DeserializationError
from urllib3.exceptions import HTTPError

from responder.certificate.network import AcmeNetwork
from responder.errors import AuthorityUnavailable, CertificateRefused
from responder.foreign import printable
from responder.tls import distrust

MAX_TEXT = 2_000
"""Characters of the text of a CA that are shown. Honest CAs send less."""

PASSING = {"badNonce", "serverInternal"}
"""Problems that are temporary for all requests (RFC 8555, section 6.7)."""


@contextmanager
def explaining(authority: str, network: AcmeNetwork) -> Iterator[None]:
    """
    Turn what the libraries raise into `CertificateRefused` and `AuthorityUnavailable`.

    *authority* names the CA; *network* knows its Retry-After.
    """
    try:
        yield
    except messages.Error as problem:
        text = f"the CA {authority} reports: {describe(problem)}"
        kind = AuthorityUnavailable if problem.code in PASSING else CertificateRefused
        raise kind(text, retry_after=network.retry_after) from None
    except (errors.Error, requests.RequestException, HTTPError, OSError) as fault:
        raise AuthorityUnavailable(f"the CA {authority}: {_why(fault)}", retry_after=network.retry_after) from fault
    except (DeserializationError, ValueError, KeyError, TypeError, AttributeError) as fault:
        # The library assumes that responses have the right members of the right types.
        raise AuthorityUnavailable(f"the CA {authority}: {_NO_CA}", retry_after=network.retry_after) from fault


_NO_CA = "it responds, but not like an ACME CA: check that the URL is that of its ACME directory"


def describe(problem: messages.Error) -> str:
    """All of a problem document (RFC 7807; RFC 8555, section 6.7.1), within bounds, fit for a terminal."""
    parts = [problem, *(problem.subproblems or ())]
    text = "; ".join(_describe_one(part) for part in parts)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... (and more)"


def shown(text: str) -> str:
    """*text* of a CA's, within bounds, fit for a terminal."""
    return printable(text[: MAX_TEXT + 1])


def _describe_one(problem: messages.Error) -> str:
    text = ": ".join(str(part) for part in (problem.typ, problem.title, problem.detail) if part)
    if problem.identifier is not None:
        text = f"{problem.identifier.value}: {text}"
    return shown(text)


def _why(fault: Exception) -> str:
    causes = list(_causes(fault))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            root = "for a private CA, give the file of its root (api.acme.ca_file, --server-ca-file)"
            return f"its HTTPS certificate {distrust.describe(cause, name='check the URL', issuer=root)}"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "it does not speak TLS at that port: check the URL"
    if any(isinstance(cause, requests.Timeout | TimeoutError) for cause in causes):
        return "it does not respond in time: try again later, and check that this machine can reach it"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "the name in its URL cannot be resolved: check the URL, and the resolver of this machine"
    if isinstance(fault, errors.ClientError) and fault.args and isinstance(fault.args[0], requests.Response):
        return _unexpected(fault.args[0])
    if isinstance(fault, errors.ClientError | requests.exceptions.InvalidJSONError):
        return _NO_CA
    reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return (
        f"it cannot be reached ({(reason or type(fault).__name__).lower()}): check the URL, and whether it is running"
    )


def _unexpected(response: requests.Response) -> str:
    """A response that is not a problem document, such as a page of a gateway."""
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    content = printable(kind[:80]) or "an unnamed kind of content"
    return f"it responds with status {response.status_code} and {content}, not like an ACME CA: check the URL, or wait"


def _causes(fault: BaseException) -> Iterator[BaseException]:
    """A fault and all its causes: libraries wrap errors of the system in exceptions of their own."""
    seen: set[int] = set()
    waiting: list[object] = [fault]
    while waiting:
        cause = waiting.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
