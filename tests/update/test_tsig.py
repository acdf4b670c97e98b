"""Signatures: which are good, what is wrong with the others, and what the reply to each is signed with."""

from __future__ import annotations

import struct
from uuid import UUID

import dns.message
import dns.rcode
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.wire import Query, parse
from responder.tokens.secret import tsig_secret
from responder.update.tsig import KeyName, Keyring, Signature, SignatureError
from tests.support.updates import ALGORITHMS, ANY, MASTER, TSIG, Key, message, name, record, tsig_of, verify

NOW = 1_700_000_000
TOKEN_ID = UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479")
NAME = f"{TOKEN_ID}-1."
KEY = Key(NAME, tsig_secret(MASTER, NAME[:-1]))
ALL = (*ALGORITHMS, "hmac-sha224", "hmac-sha1", "hmac-md5")
REPLY = bytes.fromhex("1234 a805 0001 0000 0000 0000") + name("acme.example.com") + b"\0\6\0\1"


def key(algorithm: str = "hmac-sha256.", *, of: str = NAME, secret: bytes | None = None) -> Key:
    return Key(of, tsig_secret(MASTER, of[:-1].lower()) if secret is None else secret, algorithm)


def check(packet: bytes, *, now: int = NOW, algorithms: tuple[str, ...] = ALGORITHMS) -> Signature | None:
    query = parse(packet)
    assert isinstance(query, Query)
    return Keyring(MASTER, algorithms).check(packet, query.tsig, now)


def error(packet: bytes, *, now: int = NOW, algorithms: tuple[str, ...] = ALGORITHMS) -> SignatureError | None:
    signature = check(packet, now=now, algorithms=algorithms)
    return signature.error if signature is not None else None


@pytest.mark.parametrize(
    "algorithm",
    ["hmac-sha256.", "hmac-sha384.", "hmac-sha512.", "hmac-sha224.", "hmac-sha1.", "hmac-md5.sig-alg.reg.int."],
)
def test_good(algorithm: str) -> None:
    """A signature is good by any algorithm that is switched on, in any letter case; then it is known whose it is."""
    for spelled in (algorithm, algorithm.upper()):
        signed = key(algorithm).sign(message(), NOW)
        signed = signed.replace(name(algorithm), name(spelled)).replace(name(NAME), name(NAME.upper()))
        signature = check(signed, algorithms=ALL)

        assert signature is not None
        assert (SignatureError.NONE, KeyName(TOKEN_ID, 1)) == (signature.error, signature.key_name)
    configured = algorithm.partition(".")[0]
    others = tuple(other for other in ALL if other != configured)
    assert SignatureError.BADKEY == error(key(algorithm).sign(message(), NOW), algorithms=others)


@pytest.mark.parametrize(
    "of",
    [
        "key.",
        ".",
        f"{TOKEN_ID}.",
        f"{TOKEN_ID}-.",
        f"{TOKEN_ID}-0.",
        f"{TOKEN_ID}-01.",
        f"{TOKEN_ID}-1x.",
        f"{TOKEN_ID}-1.example.com.",
        f"{TOKEN_ID.hex}-1.",
        f"x{TOKEN_ID}-1.",
        f"{TOKEN_ID}-1000000000.",
    ],
)
def test_names_that_are_no_keys(of: str) -> None:
    """Only the names that tokens have are names of keys."""
    assert SignatureError.BADKEY == error(key(of=of).sign(message(), NOW))


def test_wrong_keys() -> None:
    """A key is good for its own name, its own generation, and what it was made from."""
    assert SignatureError.BADSIG == error(key(secret=bytes(32)).sign(message(), NOW))
    assert SignatureError.BADSIG == error(key(secret=tsig_secret(MASTER, f"{TOKEN_ID}-2")).sign(message(), NOW))
    assert SignatureError.BADSIG == error(key(secret=tsig_secret(b"another", NAME[:-1])).sign(message(), NOW))


@pytest.mark.parametrize(
    ("offset", "fudge", "expected"),
    [
        (0, 0, SignatureError.NONE),
        (300, 300, SignatureError.NONE),
        (-300, 300, SignatureError.NONE),
        (301, 300, SignatureError.BADTIME),
        (-301, 300, SignatureError.BADTIME),
        (11, 10, SignatureError.BADTIME),
        (301, 65_535, SignatureError.BADTIME),
        (-301, 65_535, SignatureError.BADTIME),
        (NOW - (1 << 48) + 1, 300, SignatureError.BADTIME),
    ],
)
def test_time(offset: int, fudge: int, expected: SignatureError) -> None:
    """The clocks may differ by what the client allows, but not by more than we do (RFC 8945, section 10)."""
    assert expected == error(KEY.sign(message(), NOW - offset, fudge=fudge))


@pytest.mark.parametrize(
    ("algorithm", "size", "expected"),
    [
        ("hmac-sha256.", 0, None),
        ("hmac-sha256.", 9, None),
        ("hmac-sha256.", 15, None),
        ("hmac-sha256.", 16, SignatureError.BADTRUNC),
        ("hmac-sha256.", 31, SignatureError.BADTRUNC),
        ("hmac-sha256.", 32, SignatureError.NONE),
        ("hmac-sha512.", 31, None),
        ("hmac-sha512.", 32, SignatureError.BADTRUNC),
        ("hmac-md5.sig-alg.reg.int.", 9, None),
        ("hmac-md5.sig-alg.reg.int.", 10, SignatureError.BADTRUNC),
    ],
)
def test_truncation(algorithm: str, size: int, expected: SignatureError | None) -> None:
    """A MAC that is cut is not good enough, and malformed below a limit (RFC 8945, section 5.2.2.1)."""
    assert expected == error(key(algorithm).sign(message(), NOW, size=size), algorithms=ALL)
    if size:
        forged = key(algorithm, secret=b"x").sign(message(), NOW, size=size)
        assert (SignatureError.BADSIG if expected is not None else None) == error(forged, algorithms=ALL)


def test_mac_that_is_too_long() -> None:
    """A MAC longer than any that the algorithm makes is malformed (section 5.2.2.1)."""
    signed = KEY.sign(message(), NOW)
    mac = tsig_of(signed, KEY).mac
    rdlength = len(name(NAME)) + 8
    start = tsig_of(signed, KEY).start + rdlength
    longer = signed.replace(b"\0\x20" + mac, b"\0\x21" + mac + b"x")
    longer = longer[:start] + struct.pack("!H", len(longer) - start - 2) + longer[start + 2 :]

    assert error(longer) is None


@pytest.mark.parametrize(
    "rdata",
    [
        b"",
        b"\x0bhmac-sha256",
        name("hmac-sha256."),
        b"\xc0\x0c" + bytes(16),
        name("hmac-sha256.") + bytes(9),
        name("hmac-sha256.") + bytes(8) + b"\xff\xff" + bytes(40),
        name("hmac-sha256.") + bytes(16) + b"trailer",
    ],
)
def test_malformed(rdata: bytes) -> None:
    """A TSIG whose data is not what it should be is none."""
    assert error(message(additional=[record(NAME, TSIG, ANY, 0, rdata)])) is None


@given(st.data())
def test_nothing_else_is_good(data: st.DataObject) -> None:
    """Whatever octet of a signed message is changed, it is no longer good, except where nothing is signed."""
    signed = KEY.sign(message(), NOW)
    start = tsig_of(signed, KEY).start
    at = data.draw(st.integers(2, len(signed) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda octet: octet != signed[at]))
    changed = signed[:at] + bytes((octet,)) + signed[at + 1 :]
    query = parse(changed)
    if not isinstance(query, Query) or not query.tsig:
        return

    signature = Keyring(MASTER, ALGORITHMS).check(changed, query.tsig, NOW)

    if signature is not None and signature.error is SignatureError.NONE:
        is_letter_case = octet ^ signed[at] == 0x20
        is_ttl = start + len(name(NAME)) + 4 <= at < start + len(name(NAME)) + 8
        assert is_letter_case or is_ttl


@given(st.binary(max_size=200), st.integers(0, 0xFFFF))
def test_garbage(rdata: bytes, rrclass: int) -> None:
    """Whatever stands where the signature should be, it is looked at without stumbling, and not good."""
    packet = message(additional=[record(NAME, TSIG, ANY, 0, rdata)])

    assert error(packet) is not SignatureError.NONE


# Replies


@pytest.mark.parametrize("algorithm", ["hmac-sha256.", "hmac-sha384.", "hmac-sha512."])
def test_reply_to_a_good_one(algorithm: str) -> None:
    """The reply is signed with the same key, over the MAC of the request, at the time here."""
    request = key(algorithm).sign(message(), NOW - 100)
    signature = check(request)
    assert signature is not None

    reply = signature.sign(REPLY, NOW)

    tsig = verify(reply, request, key(algorithm), NOW)
    assert (0, NOW, b"", 0x1234) == (tsig.error, tsig.time, tsig.other, tsig.ident)
    assert REPLY[:10] + b"\0\1" + REPLY[12:] == reply[: tsig.start]


def test_reply_to_the_wrong_time() -> None:
    """It is signed, with the client's time, which it believes, and ours beside it (section 5.2.3)."""
    request = KEY.sign(message(), NOW - 1000)
    signature = check(request)
    assert signature is not None

    tsig = verify(signature.sign(REPLY, NOW), request, KEY, NOW - 1000)

    assert (18, NOW - 1000, NOW.to_bytes(6, "big")) == (tsig.error, tsig.time, tsig.other)


def test_reply_to_a_cut_one() -> None:
    """It is signed, over the MAC as it came, with a whole one."""
    request = KEY.sign(message(), NOW, size=16)
    signature = check(request)
    assert signature is not None

    tsig = verify(signature.sign(REPLY, NOW), request, KEY, NOW)

    assert (22, 32) == (tsig.error, len(tsig.mac))


@pytest.mark.parametrize(("sender", "code"), [(key(secret=b"x"), 16), (key(of="Key."), 17), (key("hmac-sha1."), 17)])
def test_reply_to_who_has_no_key(sender: Key, code: int) -> None:
    """It is not signed: that would show a forger what our signatures look like (section 5.3.2)."""
    request = sender.sign(message(), NOW)
    signature = check(request)
    assert signature is not None

    tsig = tsig_of(signature.sign(REPLY, NOW), sender)

    assert (code, b"", b"") == (tsig.error, tsig.mac, tsig.other)


@pytest.mark.parametrize(
    ("sender", "at", "expected"),
    [
        (KEY, NOW - 1000, dns.tsig.PeerBadTime),
        (key(secret=b"x"), NOW, dns.tsig.PeerBadSignature),
        (key(of="key."), NOW, dns.tsig.PeerBadKey),
    ],
)
def test_what_dnspython_makes_of_it(sender: Key, at: int, expected: type[Exception]) -> None:
    """certbot's library understands what is wrong."""
    request = sender.sign(message(), at)
    signature = check(request)
    assert signature is not None
    theirs = dns.tsig.Key(sender.name, sender.secret, sender.algorithm)

    with pytest.raises(expected):
        dns.message.from_wire(
            signature.sign(REPLY, NOW), keyring={theirs.name: theirs}, request_mac=tsig_of(request, sender).mac
        )
