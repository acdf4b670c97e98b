"""Names: what is one, how it is written, and how names relate."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder.errors import InvalidName
from responder.names import MAX_LABEL, MAX_NAME, Name

EXAMPLE = Name.parse("example.com")
ROOT = Name.parse(".")

labels = st.lists(st.binary(min_size=1, max_size=MAX_LABEL), max_size=6).filter(
    lambda found: sum(len(label) + 1 for label in found) < MAX_NAME
)
names = labels.map(Name.from_labels)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (".", b"\0"),
        ("example.com", b"\7example\3com\0"),
        ("example.com.", b"\7example\3com\0"),
        ("EXAMPLE.Com", b"\7example\3com\0"),
        (r"a\.b.c", b"\3a.b\1c\0"),
        (r"\097\032.c", b"\2a \1c\0"),
        (r"\".\\.\255", b'\1"\1\\\1\xff\0'),
        (r"a\ b", b"\3a b\0"),
    ],
)
def test_parse(text: str, wire: bytes) -> None:
    """Presentation form becomes lower-cased wire form, escapes undone, every name absolute."""
    assert wire == Name.parse(text).wire


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "'' has an empty label (two dots in a row, or a dot at its start)"),
        ("..", "'.' has an empty label (two dots in a row, or a dot at its start)"),
        ("a..b", "'a..b' has an empty label (two dots in a row, or a dot at its start)"),
        (".a", "'.a' has an empty label (two dots in a row, or a dot at its start)"),
        ("a" * 64, f"a label of '{'a' * 64}' is longer than 63 octets"),
        (".".join(["abc"] * 64), f"'{('abc.' * 64)[:77]}...' is longer than 255 octets"),
        ("bücher.example", "'bücher.example' is not ASCII: write internationalized names in their xn-- form"),
        ("a b", "'a b' contains a space or a control character"),
        ("a\x7f", "'a\\x7f' contains a space or a control character"),
        ("a\\", "'a\\\\' contains an invalid backslash escape"),
        (r"a\25", r"'a\\25' contains an invalid backslash escape"),
        (r"a\256", r"'a\\256' contains an invalid backslash escape"),
    ],
)
def test_parse_refuses(text: str, fault: str) -> None:
    """What is no name is refused, and the text says why."""
    with pytest.raises(InvalidName) as caught:
        Name.parse(text)

    assert fault == str(caught.value)


def test_longest_name() -> None:
    """255 octets on the wire are a name, 256 are none."""
    longest = [b"x" * 63, b"x" * 63, b"x" * 63, b"x" * 61]

    assert len(Name.from_labels(longest).wire) == MAX_NAME
    with pytest.raises(InvalidName):
        Name.from_labels([*longest[:3], b"x" * 62])


@given(names)
def test_text_reads_back(name: Name) -> None:
    """What is printed, with or without the trailing dot, is read as the same name."""
    assert name == Name.parse(str(name))
    assert name == Name.parse(name.fqdn)


@given(names)
def test_text_reads_back_elsewhere(name: Name) -> None:
    """Another implementation reads our text as the same octets."""
    assert name.wire == dns.name.from_text(name.fqdn).to_wire()


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """Nothing but `InvalidName` comes out of any text."""
    try:
        name = Name.parse(text)
    except InvalidName:
        return

    assert name == Name.parse(str(name))


def test_printing() -> None:
    """A name prints without trailing dot unless asked for; the root is a dot either way."""
    assert str(EXAMPLE) == "example.com"
    assert EXAMPLE.fqdn == "example.com."
    assert "." == str(ROOT) == ROOT.fqdn
    assert str(Name.from_labels([b"@", b"$a", b';()"', b"\0 \xff"])) == r"\064.\036a.\059\040\041\034.\000\032\255"


def test_case_does_not_matter() -> None:
    """Names that differ in letter case only are the same (RFC 4343)."""
    assert Name.parse("Example.COM") == EXAMPLE
    assert hash(Name.parse("Example.COM")) == hash(EXAMPLE)


@given(labels)
def test_labels(found: list[bytes]) -> None:
    """A name gives back the labels that it was made of, in lower case."""
    assert [label.lower() for label in found] == Name.from_labels(found).labels


def test_parent() -> None:
    """The parent lacks the leftmost label; the root is its own."""
    assert Name.parse("com") == EXAMPLE.parent
    assert ROOT.parent == ROOT


@pytest.mark.parametrize(
    ("name", "ancestor", "within"),
    [
        ("example.com", "example.com", True),
        ("a.b.example.com", "example.com", True),
        ("example.com", ".", True),
        ("com", "example.com", False),
        ("badexample.com", "example.com", False),
        ("example.org", "example.com", False),
        ("example.com.org", "example.com", False),
    ],
)
def test_is_within(name: str, ancestor: str, *, within: bool) -> None:
    """A name is within itself and what it ends with, label by label."""
    assert within is Name.parse(name).is_within(Name.parse(ancestor))


def test_is_within_compares_labels() -> None:
    """Octets that look like the ancestor in the middle of a label do not count."""
    assert not Name.from_labels([b"x\7example\3com"]).is_within(EXAMPLE)


@given(names)
def test_relative_to_and_under(name: Name) -> None:
    """What is left of an ancestor, put under it again, is the same name."""
    assert name == Name.from_labels(name.relative_to(name.parent)).under(name.parent)
    assert name.relative_to(name) == []


def test_under_too_long() -> None:
    """Two names may be too long together."""
    long = Name.from_labels([b"x" * 63] * 3)

    with pytest.raises(InvalidName):
        long.under(long)
