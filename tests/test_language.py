"""Plain English: words that made texts hard to read do not return, and the spelling is American, as in the RFCs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"tell(s|ing)?|told": "report, log, distinguish",
    r"say(s|ing)?|said": "report, log, state, mean",
    r"whoever|whomever": "anyone who, a client that",
    r"whatever|whichever": "any, every",
    r"nought": "zero, nothing",
    r"everybody": "all, every user",
    r"nobody": "no client, no user, not ... anyone",
    r"puts? down": "kill, stop",
    r"turn(s|ed)? (away|down)": "reject, refuse",
    r"for want of": "because ... is missing",
    r"lives? again": "is running again",
    r"sign of life": "is unresponsive",
    r"(?<!there\s)(is|are|was|were) (?-i:none)": "is invalid, is not a valid ..., was not issued by this service",
    r"so many": "a number, how many",
    r"(many|[a-z])-th": "Nth",
    r"strangers?": "another user, an unknown client",
    r"brought out|brings out": "caused, unhandled exception",
    r"lest|whence|thence|hither|ought": "a word of today",
    r"(behaviour|colour|favour|honour|neighbour)\w*": "behavior, color, ... (American)",
    r"\w*(author|final|initial|minim|maxim|national|normal|optim|organ|recogn|serial|summar|synchron)is(e|es|ed|ing|ation)":
    "-ize, -ization (American)",
    r"licences?|centres?|catalogues?|defences?|artefacts?": "license, center, catalog, ... (American)",
}  # fmt: skip
"""What a text must not hold, as regular expressions of whole words, and what to write instead."""

TEXTS = sorted(
    path.relative_to(ROOT)
    for pattern in (
        *("responder/**/*.py", "responder/**/*.json", "migrations/**/*.py"),
        *("*.md", "docs/**/*.md", ".ci/*", "Dockerfile", "Makefile", "pyproject.toml"),
        "config/**/*.*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and "__pycache__" not in path.parts
)
"""The files whose text a user, an administrator or a reader of the code meets."""

_WORD = re.compile(rf"(?i)\b({'|'.join(INSTEAD)})\b".replace(" ", r"\s+"))
_CODE = re.compile(r'`[^`\n]*`|"nobody"')  # a user of every system has that name


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_words_do_not_return(text: Path) -> None:
    """No prose has one of the words; `code` between backticks may have any."""
    assert [] == offenders(text)


def offenders(text: Path) -> list[str]:
    """The line, the word, and what to write instead, of each fault in the file *text*."""
    prose = _CODE.sub("", (ROOT / text).read_text())
    return [
        f"{text}:{prose.count(chr(10), 0, found.start()) + 1}: {found[0]!r}: {_instead(found[0])}"
        for found in _WORD.finditer(prose)
    ]


def _instead(word: str) -> str:
    plain = " ".join(word.split())
    return next(instead for pattern, instead in INSTEAD.items() if re.fullmatch(pattern, plain, re.IGNORECASE))
