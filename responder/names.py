"""
The type of all domain names: they are validated once where they come in, lower-cased, and compared as octets.

A `Name` does not keep letter case, because DNS compares names without it (RFC 4343). Only the question that a reply
repeats keeps its case; its octets are copied from the packet and never become a `Name`.
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

# Nearly all names match these; reading them octet by octet takes ten times as long.
_PLAIN_TEXT = re.compile(r"[!-\[\]-~]+")
_PLAIN_LABEL = re.compile(rb"[\w*-]+")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """An absolute domain name. *wire* is its uncompressed, lower-cased wire form and its identity."""

    wire: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Parse the presentation form of RFC 1035, section 5.1. Every name is absolute, with or without a trailing dot.

        Raises `InvalidName` with a text that describes the fault.
        """
        if text == ".":
            return cls(b"\0")
        labels = text.encode().split(b".") if _PLAIN_TEXT.fullmatch(text) else _split(text)
        if len(labels) > 1 and not labels[-1]:
            labels.pop()
        return cls.from_labels(labels)

    @classmethod
    def from_labels(cls, labels: list[bytes]) -> Self:
        """
        Join *labels*, which do not include the empty label of the root.

        Raises `InvalidName` if a label is empty or too long, or if the name is too long.
        """
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
        """The labels from left to right, without the empty label of the root."""
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
        """Return whether this name is *ancestor* or is below it."""
        start = len(self.wire) - len(ancestor.wire)
        return start >= 0 and self.wire.endswith(ancestor.wire) and is_label_start(self.wire, start)

    def relative_to(self, ancestor: Name) -> list[bytes]:
        """Return the labels left of *ancestor*; this name must be within it."""
        labels = self.labels
        return labels[: len(labels) - len(ancestor.labels)]

    def under(self, suffix: Name) -> Name:
        """Return this name with *suffix* appended. Raises `InvalidName` if the result is too long."""
        return Name.from_labels(self.labels + suffix.labels)

    @property
    def fqdn(self) -> str:
        """The presentation form with the trailing dot."""
        return "." if self.wire == b"\0" else f"{self}."

    def __str__(self) -> str:
        """Return the presentation form without a trailing dot; the root is a single dot."""
        return ".".join(_escape(label) for label in self.labels) or "."


def name_end(wire: bytes) -> int:
    """Return the length in octets of the uncompressed name at the beginning of *wire*."""
    at = 0
    while wire[at]:
        at += 1 + wire[at]
    return at + 1


def is_label_start(wire: bytes, offset: int) -> bool:
    """Return whether a label of the name *wire* begins at *offset*; octets inside a label can look like labels."""
    at = 0
    while at < offset:
        at += 1 + wire[at]
    return at == offset


def _split(text: str) -> list[bytes]:
    """Split a name in presentation form into labels and resolve its escapes. A trailing dot adds an empty label."""
    if not text.isascii():
        raise InvalidName(f"{text[:80]!r} is not ASCII: write internationalized names in their xn-- form")
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
            raise InvalidName(f"{text[:80]!r} contains a space or a control character")
        else:
            label.append(ord(text[at]))
        at += 1
    return [*labels, bytes(label)]


def _unescape(after: str, text: str) -> tuple[int, int]:
    """Return the octet that the characters after a backslash stand for, and the number of those characters."""
    if len(after) == 3 and after.isdigit() and int(after) <= 255:
        return int(after), 3
    if after and not after[0].isdigit():
        return ord(after[0]), 1
    raise InvalidName(f"{text[:80]!r} contains an invalid backslash escape")


def _escape(label: bytes) -> str:
    if _PLAIN_LABEL.fullmatch(label):
        return label.decode()
    return "".join(
        chr(octet)
        if _PLAIN_LABEL.fullmatch(bytes((octet,)))
        else r"\."
        if octet == ord(".")
        else f"\\{octet:03d}"  # NSD reads \# and \[ in its own way, and \\. as one escape
        for octet in label
    )


def _quote(labels: list[bytes]) -> str:
    """Return a name for an error message, cut to 80 characters."""
    text = ".".join(_escape(label) for label in labels)
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
