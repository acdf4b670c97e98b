"""What is an update, octet by octet, and what is none."""

from __future__ import annotations

import struct

import pytest

from responder.dns.wire import Query, parse
from responder.errors import InvalidUpdate, OutsideZone, ResponderError
from responder.names import Name
from responder.update.message import MAX_RECORDS, Record, UpdateMessage, read
from tests.support.updates import (
    ANY,
    ANY_TYPE,
    IN,
    NONE,
    SOA,
    TXT,
    A,
    Key,
    add,
    delete,
    delete_all,
    message,
    name,
    record,
    text,
)

MINE = "_acme-challenge.some.acme.example.com."
KEY = Key("key.", b"secret")
WIRE = Name.parse(MINE)


def read_message(*changes: bytes, prerequisites: list[bytes] | None = None) -> UpdateMessage:
    packet = KEY.sign(message(*changes, prerequisites=prerequisites or []), 1_700_000_000)
    query = parse(packet)
    assert isinstance(query, Query)
    return read(packet, query)


def test_what_is_read() -> None:
    """Records come in their order, each section by itself, names without letter case."""
    read = read_message(
        record(MINE.upper(), TXT, IN, 60, text("a")),
        record(MINE, TXT, NONE, 0, text("two", "strings")),
        record(MINE, ANY_TYPE, ANY),
        prerequisites=[record(MINE, ANY_TYPE, NONE), record(MINE, A, IN, 0, bytes(4))],
    )

    assert (Record(WIRE, ANY_TYPE, NONE, 0, b""), Record(WIRE, A, IN, 0, bytes(4))) == read.prerequisites
    assert (
        Record(WIRE, TXT, IN, 60, b"\1a"),
        Record(WIRE, TXT, NONE, 0, b"\3two\7strings"),
        Record(WIRE, ANY_TYPE, ANY, 0, b""),
    ) == read.changes


def test_many_records() -> None:
    """An update is of a few values; more records than that would be a burden that one packet puts on everybody."""
    most = [add(MINE, "a")] * (MAX_RECORDS - 1)
    expected = record(MINE, TXT, ANY)

    assert len(most) == len(read_message(*most, prerequisites=[expected]).changes)
    with pytest.raises(InvalidUpdate, match="more than 40 prerequisites and changes: send several updates"):
        read_message(*most, add(MINE, "a"), prerequisites=[expected])


def test_compressed_names() -> None:
    """Names may be compressed, wholly or in part."""
    tail = record(".", TXT, IN, 60, text("a"))[1:]
    changes = [add(MINE, "a"), b"\xc0\x22" + tail, b"\x0f_acme-challenge\x04some\xc0\x0c" + tail]

    assert (Record(WIRE, TXT, IN, 60, b"\1a"),) * 3 == read_message(*changes).changes


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (add("_acme-challenge.some.example.com.", "a"), OutsideZone),
        (delete_all("example.com."), OutsideZone),
        (add(".", "a"), OutsideZone),
        (add("xacme.example.com.", "a"), OutsideZone),
        (record(MINE, TXT, IN, 60), InvalidUpdate),
        (record(MINE, TXT, IN, 60, b"\5four"), InvalidUpdate),
        (record(MINE, TXT, IN, 60, b"\3four"), InvalidUpdate),
        (record(MINE, TXT, NONE, 0, b"\5four"), InvalidUpdate),
        (record(MINE, TXT, NONE), InvalidUpdate),
        (record(MINE, TXT, 3, 60, text("a")), InvalidUpdate),
        (record(MINE, TXT, 0, 60, text("a")), InvalidUpdate),
        (record(MINE, ANY_TYPE, IN, 60, b"x"), InvalidUpdate),
        (record(MINE, 0, IN, 60, b"x"), InvalidUpdate),
        (record(MINE, 41, IN, 60, b"x"), InvalidUpdate),
        (record(MINE, 128, IN, 60, b"x"), InvalidUpdate),
        (record(MINE, 252, IN, 60, b"x"), InvalidUpdate),
        (record(MINE, TXT, ANY, 1), InvalidUpdate),
        (record(MINE, TXT, ANY, 0, text("a")), InvalidUpdate),
        (record(MINE, 253, ANY), InvalidUpdate),
        (record(MINE, TXT, NONE, 1, text("a")), InvalidUpdate),
        (record(MINE, ANY_TYPE, NONE), InvalidUpdate),
        (b"\xc0\xff" + add(MINE, "a")[len(name(MINE)) :], InvalidUpdate),
        (b"\xc0" + bytes((34 + len(add(MINE, "a")),)) + add(MINE, "a")[len(name(MINE)) :], InvalidUpdate),
        (add("a." * 120 + "acme.example.com", "a"), InvalidUpdate),
        (record(MINE, 65_280, IN, 0xFFFFFFFF, b"x"), None),
        (record(MINE, 65_280, NONE, 0, b"x"), None),
        (record(MINE, A, ANY), None),
        (delete(MINE, "a"), None),
        (add("acme.example.com", "a"), None),
    ],
)
def test_changes(change: bytes, error: type[ResponderError] | None) -> None:
    """What RFC 2136, section 3.4.1, sorts out is no update; what it lets pass is one, whether or not it is allowed."""
    if error is None:
        assert 1 == len(read_message(change).changes)
    else:
        with pytest.raises(error, match=r"."):
            read_message(add(MINE, "a"), change)


@pytest.mark.parametrize(
    ("prerequisite", "error"),
    [
        (record(MINE, TXT, ANY, 1), InvalidUpdate),
        (record(MINE, TXT, NONE, 1), InvalidUpdate),
        (record(MINE, TXT, IN, 1, text("a")), InvalidUpdate),
        (record(MINE, TXT, ANY, 0, text("a")), InvalidUpdate),
        (record(MINE, TXT, NONE, 0, text("a")), InvalidUpdate),
        (record(MINE, TXT, IN), InvalidUpdate),
        (record(MINE, TXT, IN, 0, b"\5four"), InvalidUpdate),
        (record(MINE, TXT, 3, 0, text("a")), InvalidUpdate),
        (record(MINE, 252, ANY), InvalidUpdate),
        (record(MINE, ANY_TYPE, IN, 0, b"x"), InvalidUpdate),
        (record("example.com", ANY_TYPE, ANY), OutsideZone),
        (record("example.com", ANY_TYPE, ANY, 1), OutsideZone),
        (record(MINE, ANY_TYPE, ANY), None),
        (record(MINE, ANY_TYPE, NONE), None),
        (record(MINE, TXT, ANY), None),
        (record(MINE, TXT, NONE), None),
        (record(MINE, TXT, IN, 0, text("a")), None),
        (record("acme.example.com", SOA, ANY), None),
    ],
)
def test_prerequisites(prerequisite: bytes, error: type[ResponderError] | None) -> None:
    """So does section 3.2 with prerequisites."""
    if error is None:
        assert 1 == len(read_message(prerequisites=[prerequisite]).prerequisites)
    else:
        with pytest.raises(error, match=r"."):
            read_message(prerequisites=[record(MINE, TXT, ANY), prerequisite])


@pytest.mark.parametrize("additional", [record(".", 41, 1232), record(MINE, A, IN), record("\x7f", A, IN)])
def test_additional(additional: bytes) -> None:
    """What is in the additional section in front of the signature means nothing."""
    packet = KEY.sign(message(add(MINE, "a"), additional=[additional]), 1_700_000_000)
    query = parse(packet)
    assert isinstance(query, Query)

    assert 1 == len(read(packet, query).changes)


@pytest.mark.parametrize("counts", [(1, 1), (0, 2), (2, 0), (0, 0), (0, 65_535)])
def test_counts(counts: tuple[int, int]) -> None:
    """A signature is found only behind as many records as the header counts; then each section has its own."""
    packet = message(add(MINE, "a"))
    packet = KEY.sign(packet[:6] + struct.pack("!HH", *counts) + packet[10:], 1_700_000_000)

    query = parse(packet)

    assert isinstance(query, Query)
    assert 0 == query.tsig
