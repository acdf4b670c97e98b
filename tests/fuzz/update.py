"""
The fuzz target for DNS updates in the control process: octets in, and either all is well or an `AssertionError`.

An even first octet makes the rest a packet with whatever stands where its signature should be. An odd one makes it the
body of an update, behind three octets that count its records, which is then signed as it ought to be: so hostile
holders of a token are tried, too. The oracle reads both with dnspython.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import dns.exception
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update

from responder.dns.wire import Query, parse
from responder.errors import InvalidUpdate, OutsideZone, Refused
from responder.names import Name
from responder.store import Cleanup, Present, Step
from responder.tokens.token import Grant, Token
from responder.update.message import read
from responder.update.steps import steps
from responder.update.tsig import Keyring, SignatureError
from tests.support.updates import (
    ALGORITHMS,
    ANY,
    ANY_TYPE,
    IN,
    MASTER,
    NONE,
    SOA,
    TXT,
    Key,
    add,
    delete,
    delete_all,
    key_of,
    record,
    text,
)
from tests.support.updates import message as update
from tests.support.updates import name as wire_name

CORPUS = Path(__file__).parent / "corpus-update"

NOW = 1_700_000_000
MINE = "_acme-challenge.some.acme.example.com"
APEX = Name.parse("acme.example.com")
TOKEN = Token(
    id=UUID(int=7),
    description=None,
    grants=(Grant(hostname=Name.parse("some.example.com"), challenge_name=Name.parse(MINE), apex=APEX),),
    created_at=datetime.fromtimestamp(NOW, UTC),
)
KEY = key_of(TOKEN)
FORGED = Key(KEY.name, b"what somebody guessed")
KEYRING = Keyring(MASTER, ALGORITHMS)
ZONE = wire_name("acme.example.com") + struct.pack("!HH", SOA, IN)


def check(data: bytes) -> None:
    """Raises unless *data* is turned down, or comes to what somebody else reads in it, at names of the token."""
    if len(data) < 4:
        return
    if data[0] & 1:
        expect_own_names(signed_update(data))
    else:
        expect_no_forgery(data[1:])


def signed_update(data: bytes) -> bytes:
    """An update whose body is *data* behind its first four octets."""
    head = struct.pack("!HHHHHH", 0x1234, 5 << 11, 1, data[1] & 7, data[2] & 15, data[3] & 3)
    return KEY.sign(head + ZONE + data[4:], NOW)


def expect_no_forgery(packet: bytes) -> None:
    """What nobody signed is not good; the reply says so in a form that dnspython reads."""
    query = parse(packet)
    if not isinstance(query, Query) or not query.tsig:
        return
    signature = KEYRING.check(packet, query.tsig, NOW)
    if signature is None:
        return
    assert signature.error in (SignatureError.BADKEY, SignatureError.BADSIG)
    reply = signature.sign(packet[:2] + b"\xa8\x09\0\1" + bytes(6) + ZONE, NOW)
    assert len(reply) <= 1232
    try:
        dns.message.from_wire(reply, keyring=lambda _, name: dns.tsig.Key(name, b"x"))
    except dns.tsig.PeerError:
        return
    raise AssertionError("not told what is wrong")


def expect_own_names(packet: bytes) -> None:
    """Of a signed update, whatever is in it, nothing comes but steps at the token's name: those that it says."""
    query = parse(packet)
    if not isinstance(query, Query) or not query.tsig:
        return
    signature = KEYRING.check(packet, query.tsig, NOW)
    if signature is None or signature.error is not SignatureError.NONE:
        return  # the body ended the message early: what was taken for the signature is part of it
    try:
        wanted = steps(read(packet, query), TOKEN, client="192.0.2.7", expires_at=TOKEN.created_at)
    except (InvalidUpdate, OutsideZone, Refused):
        return
    assert all(step.challenge_name == Name.parse(MINE) and step.token_id == TOKEN.id for step in wanted)
    theirs = read_by_dnspython(packet[:10] + bytes((packet[10], packet[11] - 1)) + packet[12 : query.tsig])
    if theirs is not None:
        assert theirs == [(type(step), step.value) for step in wanted if isinstance(step, Present | Cleanup)]


def read_by_dnspython(unsigned: bytes) -> list[tuple[type[Step], str | None]] | None:
    """The changes that dnspython finds in an update, as the steps that they come to; None if it finds none at all."""
    try:
        message = dns.message.from_wire(unsigned, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError):
        return None
    assert isinstance(message, dns.update.UpdateMessage)
    changes: list[tuple[type[Step], str | None]] = []
    for rrset in message.update:
        texts = [
            b"".join(rdata.strings).decode("latin-1") for rdata in rrset if len(getattr(rdata, "strings", ())) == 1
        ]
        if rrset.deleting is None:
            changes += [(Present, value) for value in texts]
        elif rrset.deleting == dns.rdataclass.NONE:
            changes += [(Cleanup, value) for value in texts if value and value.isascii() and value.isprintable()]
        elif rrset.rdtype in (dns.rdatatype.TXT, dns.rdatatype.ANY):
            changes.append((Cleanup, None))
    return changes


def seeds() -> dict[str, bytes]:
    """The corpus by file name."""
    unsigned = record(KEY.name, 250, ANY, 0, wire_name("hmac-sha256.") + bytes(16))
    return {
        "add": b"\1\0\1\0" + add(MINE, "a" * 43),
        "replace": b"\1\0\2\0" + delete_all(MINE) + add(MINE, "a"),
        "delete": b"\1\0\2\0" + delete(MINE, "a") + delete_all(MINE, ANY_TYPE),
        "compressed": b"\1\0\2\0" + add(MINE, "a") + b"\xc0\x22" + add(MINE, "b")[len(wire_name(MINE)) :],
        "prerequisites": b"\1\3\0\0"
        + record(MINE, ANY_TYPE, ANY) + record(MINE, TXT, NONE) + record(MINE, TXT, IN, 0, text("a")),
        "ignored": b"\1\0\2\1" + record(MINE, 1, ANY) + record(MINE, 1, NONE, 0, bytes(4)) + record(".", 41, 1232),
        "other": b"\1\0\1\0" + add("_acme-challenge.other.acme.example.com", "a"),
        "outside": b"\1\0\1\0" + add("_acme-challenge.some.example.com", "a"),
        "empty": b"\1\0\0\0",
        "forged": b"\0" + update(add(MINE, "a"), additional=[unsigned]),
        "forged-mac": b"\0" + FORGED.sign(update(add(MINE, "a")), NOW),
        "forged-name": b"\0" + update(additional=[record("key.", 250, ANY, 0, wire_name("alg.") + bytes(16))]),
        "forged-cut": b"\0" + FORGED.sign(update(), NOW, size=12),
    }  # fmt: skip


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for seed, data in seeds().items():
        (CORPUS / seed).write_bytes(data)
