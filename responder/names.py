"""
The one type for domain names: validated once at the edge, lower-cased, compared as bytes.

A `Name` keeps no letter case, because DNS compares names without it (RFC 4343); the one place where the case
matters, echoing a question, copies the packet's own bytes and never comes here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from responder.errors import InvalidName

MAX_NAME = 255
"""Octets of a name on the wire, the root's zero octet included (RFC 1035, section 2.3.4)."""

MAX_LABEL = 63
"""Octets of one label (RFC 1035, section 2.3.4)."""

# Nearly every name is of this kind, and octet by octet would take ten times as long.
_PLAIN_TEXT = re.compile(r"[!-\[\]-~]+")
_PLAIN_LABEL = re.compile(rb"[\w*-]+")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """An absolute domain name. *wire* is its uncompressed, lower-cased wire form and its identity."""

    wire: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the presentation form of RFC 1035, section 5.1; a trailing dot is optional, every name is absolute.

        Raises `InvalidName` with the fault, for a person to read.
        """
        if text == ".":
            return cls(b"\0")
        labels = text.encode().split(b".") if _PLAIN_TEXT.fullmatch(text) else _split(text)
        if len(labels) > 1 and not labels[-1]:
            labels.pop()
        return cls.from_labels(labels)

    @classmethod
    def from_labels(cls, labels: list[bytes]) -> Self:
        """Join *labels*, the root's empty one left out. Raises `InvalidName` if one is empty or all are too long."""
        for label in labels:
            if not label:
                raise InvalidName(f"{_quote(labels)} has an empty label (two dots in a row, or a dot at its start)")
            if len(label) > MAX_LABEL:
                raise InvalidName(f"a label of {_quote(labels)} is longer than {MAX_LABEL} octets")
        wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
        if len(wire) > MAX_NAME:
            raise InvalidName(f"{_quote(labels)} is longer than {MAX_NAME} octets")
        return cls(wire.lower())

    @property
    def labels(self) -> list[bytes]:
        """The labels from left to right, without the root's."""
        labels, at = [], 0
        while length := self.wire[at]:
            labels.append(self.wire[at + 1 : at + 1 + length])
            at += 1 + length
        return labels

    @property
    def parent(self) -> Name:
        """The name without its leftmost label; the root is its own parent."""
        return Name(self.wire[1 + self.wire[0] :]) if self.wire != b"\0" else self

    def is_within(self, ancestor: Name) -> bool:
        """Whether this is *ancestor* or a name below it."""
        start = len(self.wire) - len(ancestor.wire)
        return start >= 0 and self.wire.endswith(ancestor.wire) and is_label_start(self.wire, start)

    def relative_to(self, ancestor: Name) -> list[bytes]:
        """The labels left of *ancestor*, which this name must be within."""
        labels = self.labels
        return labels[: len(labels) - len(ancestor.labels)]

    def under(self, suffix: Name) -> Name:
        """All labels of this name, followed by *suffix*. Raises `InvalidName` if that is too long."""
        return Name.from_labels(self.labels + suffix.labels)

    @property
    def fqdn(self) -> str:
        """Presentation form with the trailing dot."""
        return "." if self.wire == b"\0" else f"{self}."

    def __str__(self) -> str:
        """Presentation form without a trailing dot (the root is a lone dot)."""
        return ".".join(_escape(label) for label in self.labels) or "."


def name_end(wire: bytes) -> int:
    """Where the uncompressed name that begins *wire* ends."""
    at = 0
    while wire[at]:
        at += 1 + wire[at]
    return at + 1


def is_label_start(wire: bytes, offset: int) -> bool:
    """Whether a label of the name *wire* begins at *offset*: octets inside a label can look like labels."""
    at = 0
    while at < offset:
        at += 1 + wire[at]
    return at == offset


def _split(text: str) -> list[bytes]:
    """Labels of a presentation-form name, its backslash escapes undone; the last is empty after a trailing dot."""
    if not text.isascii():
        raise InvalidName(f"{text[:80]!r} is not ASCII: write internationalised names in their xn-- form")
    labels, label, at = [], bytearray(), 0
    while at < len(text):
        if text[at] == ".":
            labels.append(bytes(label))
            label.clear()
        elif text[at] == "\\":
            octet, width = _unescape(text[at + 1 : at + 4], text)
            label.append(octet)
            at += width
        elif text[at] <= " " or text[at] == "\x7f":
            raise InvalidName(f"{text[:80]!r} holds a space or a control character")
        else:
            label.append(ord(text[at]))
        at += 1
    return [*labels, bytes(label)]


def _unescape(after: str, text: str) -> tuple[int, int]:
    """The octet that follows a backslash, and how many characters it took."""
    if len(after) == 3 and after.isdigit() and int(after) <= 255:
        return int(after), 3
    if after and not after[0].isdigit():
        return ord(after[0]), 1
    raise InvalidName(f"{text[:80]!r} holds a broken backslash escape")


def _escape(label: bytes) -> str:
    if _PLAIN_LABEL.fullmatch(label):
        return label.decode()
    return "".join(
        chr(octet)
        if _PLAIN_LABEL.fullmatch(bytes((octet,)))
        else r"\."
        if octet == ord(".")
        else f"\\{octet:03d}"  # NSD takes \# and \[ for its own, and \\. for one escape
        for octet in label
    )


def _quote(labels: list[bytes]) -> str:
    """A name for an error message, cut to a bearable length."""
    text = ".".join(_escape(label) for label in labels)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
