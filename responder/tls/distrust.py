"""
Why the certificate of a server is not trusted, and how to fix that: in the same words for every client in this program.

A certificate that has expired and a clock that is wrong look alike from here, so both are named.
"""

from __future__ import annotations

import ssl
from enum import IntEnum

_CLOCK = "compare `date -u` with the true time"


class _Code(IntEnum):
    """Results of a verification as OpenSSL's x509_vfy.h numbers them; the ssl module has no names for them."""

    NOT_YET_VALID = 9
    EXPIRED = 10
    OTHER_NAME = 62
    OTHER_ADDRESS = 64


def describe(fault: ssl.SSLCertVerificationError, *, name: str, issuer: str) -> str:
    """
    What is wrong with the certificate, to go on after words such as "its certificate", and how to fix it.

    *name* is how to fix one that is for another name, *issuer* one whose issuer is unknown here.
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
