"""
The parts of zone text: entries, their words, names, and escapes (RFC 1035, section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from responder.errors import InvalidZone
from responder.names import Name

_TOKEN = re.compile(
    r"""  (?P<space>[ \t\r\f\v]+) | ;[^\n]* | (?P<newline>\n) | (?P<parenthesis>[()])
        | (?P<word> "(?:[^"\\\n]|\\[^\n])*" | (?:[^\s"();\\]|\\[^\n])+ | . )  # the dot is for malformed text
    """,
    re.VERBOSE | re.ASCII,
)
_BROKEN = {
    '"': "a quoted string does not end on its line: add the closing quote",
    "\\": "there is a backslash at the end of the line: remove it",
    "(": "a parenthesis is never closed: add the missing )",
    ")": "a parenthesis was never opened: remove the )",
}
_ESCAPE = re.compile(rb"\\(?:([0-9]{3})|(.))", re.DOTALL)


def entries(text: str) -> Iterator[tuple[int, list[str]]]:
    """The entries of *text*: the number of their first line, and their words. A space at the start is an empty word."""
    words: list[str] = []
    line, first, depth, at_start = 1, 1, 0, True
    for token in _TOKEN.finditer(f"{text}\n"):
        kind, word = token.lastgroup, token[0]
        if kind == "space" and at_start and not depth:
            words.append("")
        elif kind == "parenthesis" and (word == "(" or depth):
            depth += 1 if word == "(" else -1
        elif kind in ("word", "parenthesis"):
            words.append(word)
        at_start = kind == "newline"
        line += at_start
        if at_start and not depth:
            if any(words):
                yield first, words
            words, first = [], line
    if depth:
        yield first, [*words, "("]


def check(words: list[str]) -> None:
    """Raises `InvalidZone` for malformed words, and for words that are not ASCII."""
    for word in words:
        if not word.isascii():
            refuse(f"{word[:40]!r} is not ASCII: write such octets as \\DDD, and names in their xn-- form")
        if word in _BROKEN:
            refuse(_BROKEN[word])


def refuse(text: str) -> NoReturn:
    """Report what is wrong with an entry. Raises `InvalidZone`."""
    raise InvalidZone([text])


def parse_name(word: str, origin: Name) -> Name:
    """The name in *word*: absolute with a trailing dot, else below *origin*; @ is *origin*. Raises `Invalid`."""
    if word == "@":
        return origin
    if word.startswith('"'):
        refuse(f"{word[:80]} is quoted: write names without quotes")
    absolute = re.sub(r"\\(\d{3}|.)", "", word).endswith(".")  # an escaped dot belongs to its label
    return Name.parse(word) if absolute else Name.parse(word).under(origin)


def unescape(word: str) -> bytes:
    """The octets of a word without its quotes and escapes. Raises `ValueError` if an escape is above 255."""
    bare = word[1:-1] if word.startswith('"') else word
    return _ESCAPE.sub(lambda match: bytes((int(match[1]),)) if match[1] else match[2], bare.encode())


def escape(octets: bytes) -> str:
    """*octets* as text between quotes, with escapes."""
    return "".join(
        f"\\{octet:03d}" if not 0x20 <= octet < 0x7F else f"\\{chr(octet)}" if octet in b'"\\' else chr(octet)
        for octet in octets
    )
