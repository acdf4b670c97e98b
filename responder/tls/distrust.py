"""
Why a client does not trust the certificate of a server, and how to fix that, with the same text for every client here.

A client cannot distinguish an expired certificate from a wrong clock, so the text names both.
"""

from __future__ import annotations

import ssl
from enum import IntEnum

_CLOCK = "compare `date -u` with the true time"


class _Code(IntEnum):
    """Results of a verification, from OpenSSL's x509_vfy.h. The ssl module has no names for them."""

    NOT_YET_VALID = 9
    EXPIRED = 10
    OTHER_NAME = 62
    OTHER_ADDRESS = 64


def describe(fault: ssl.SSLCertVerificationError, *, name: str, issuer: str) -> str:
    """
    What is wrong with the certificate and how to fix it. The text continues a sentence such as "its certificate ...".

    *name* is how to fix a certificate for another name; *issuer* is how to fix one with an unknown issuer.
    """
    match fault.verify_code:
        case _Code.EXPIRED:
            return f"has expired, or the clock of this machine is ahead: {_CLOCK}"
        case _Code.NOT_YET_VALID:
            return f"is not valid yet, or the clock of this machine is behind: {_CLOCK}"
        case _Code.OTHER_NAME | _Code.OTHER_ADDRESS:
            return f"is for another name: {name}"
        case _:
            return f"is not trusted here ({fault.verify_message}): {issuer}"
