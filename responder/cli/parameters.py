"""Arguments that several commands take: what is said on the command line, read once, refused with the mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import click

from responder.config import parse_base_url, parse_directory, parse_duration
from responder.errors import Invalid, InvalidHostname, InvalidRequest
from responder.files.namedfile import STDIN
from responder.names import Name
from responder.tokens.hostname import parse_hostname
from responder.tokens.network import Network, parse_network

T = TypeVar("T")

MAX_DURATION = timedelta(days=36_500)
"""A hundred years: whoever asks for more means for ever."""

MIN_ID = 6
"""Characters of an id that will do: enough to be one token's among some hundreds, few enough to type."""


class Renamed(click.Option):
    """An option that may also be given by its former names: all of its names but the first. The help omits them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all_names = self.opts
        self.opts = self.opts[:1]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown, self.opts = self.opts, self._all_names
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown


class Parsed(click.ParamType[T]):
    """What *parse* makes of the text; its `Invalid` says what is wrong with it."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except Invalid as fault:
            self.fail(str(fault), param, ctx)


class Text(click.ParamType[str]):
    """Text that matches *pattern*; *meaning* completes "... is not"."""

    def __init__(self, name: str, pattern: str, meaning: str) -> None:
        self.name = name
        self._pattern = re.compile(pattern)
        self._meaning = meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._pattern.fullmatch(str(value)):
            self.fail(f"{value!r} is not {self._meaning}", param, ctx)
        return str(value)


class Duration(click.ParamType[timedelta]):
    """A time such as 24h, not nothing unless *zero* is allowed."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._least = 0 if zero else 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            seconds = parse_duration(str(value))
        except Invalid as fault:
            self.fail(str(fault), param, ctx)
        if not self._least <= seconds <= MAX_DURATION.total_seconds():
            self.fail(f"{value!r} is not between {self._least}s and {MAX_DURATION.days}d", param, ctx)
        return timedelta(seconds=seconds)


class NetworkArgument(click.ParamType[Network]):
    """A network in CIDR notation."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return parse_network(value)
        except ValueError as fault:
            self.fail(f"{value!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32: {fault}", param, ctx)


class Note(click.ParamType[str]):
    """A line of text for people."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # What is printed on terminals must not be able to command them.
        if not str(value).isprintable():
            self.fail(f"{value!r} is not one line of printable text", param, ctx)
        return str(value)


class TokenId(click.ParamType[str]):
    """The id of a token, or how it begins; `Store.token_id` finds out whose it is."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        try:
            return str(UUID(text))
        except ValueError:
            if not re.fullmatch(rf"[0-9a-f-]{{{MIN_ID},36}}", text):
                self.fail(f"{value!r} is no id of a token, nor the first {MIN_ID} characters of one", param, ctx)
            return text


class Hostname(click.ParamType[Name]):
    """
    A hostname that there may be something about already, even if no token would be minted for it today.

    What is no name raises `InvalidName`, and is refused as by the commands that take several at once.
    """

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Name:
        try:
            return parse_hostname(str(value))
        except InvalidHostname:
            return Name.parse(str(value).removeprefix("*."))


def parse_hosts(texts: Iterable[str]) -> dict[Name, list[bool]]:
    """
    The hostnames that a certificate is to name, each with whether it is meant as a wildcard: False, True, or both.

    Raises `InvalidRequest` with every fault.
    """
    faults: list[str] = []
    wanted: dict[Name, list[bool]] = {}
    for text in texts:
        try:
            kinds = wanted.setdefault(parse_hostname(text), [])
        except InvalidHostname as fault:
            faults.append(str(fault))
        else:
            wildcard = text.strip().startswith("*.")
            kinds.extend([wildcard] * (wildcard not in kinds))
    if faults:
        raise InvalidRequest(dict.fromkeys(faults))
    return wanted


def check_stdin(*files: Path | None) -> None:
    """Refuse, as wrong usage, more than one of *files* that is standard input."""
    if files.count(STDIN) > 1:
        raise click.UsageError("only one of the files can be stdin")


FILE = click.Path(path_type=Path, allow_dash=True)
"""A file to read; `-` is standard input."""

BASE_URL = Parsed("url", parse_base_url)
"""The URL of an API."""

SERVER = Parsed("url", parse_directory)
"""The URL of an ACME directory, or a short name for it."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""Part of a pattern: a label of a name as Kubernetes has them (RFC 1123)."""

THUMBPRINT = Text(
    "thumbprint",
    r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]",
    "a thumbprint, which has 43 characters of base64url: see responder thumbprint, or name the key's file with "
    "--account-key",
)
"""A JWK thumbprint (RFC 7638): a SHA-256 in base64url, whose 32 octets leave the last character few choices."""
