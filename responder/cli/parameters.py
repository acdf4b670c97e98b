"""Arguments that several commands take. Each is read and checked here; an error explains how to fix it."""

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
from responder.tokens.network import Network, network_fault, parse_network
from responder.tokens.token import TEMPORARY

T = TypeVar("T")

MAX_DURATION = timedelta(days=36_500)
"""A hundred years, which is as good as without an end."""

MIN_ID = 6
"""The least characters of an id: enough to identify one token among hundreds, and few enough to type."""


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
    """The result of *parse*, whose `Invalid` explains what is wrong with the text."""

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
    """A time such as 24h; it may be 0 only if *zero* is set."""

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._least = 0 if zero else 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            seconds = parse_duration(str(value))
        except Invalid as fault:
            self.fail(str(fault), param, ctx)
        if not self._least <= seconds <= MAX_DURATION.total_seconds():
            self.fail(f"{value!r} is not from {self._least}s to {MAX_DURATION.days}d", param, ctx)
        return timedelta(seconds=seconds)


class NetworkArgument(click.ParamType[Network]):
    """A network in CIDR notation."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return parse_network(value)
        except ValueError:
            self.fail(network_fault(str(value)), param, ctx)


class Note(click.ParamType[str]):
    """The description of a token: a line of text for people."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # It is printed on terminals, which must not receive control characters.
        if not str(value).isprintable():
            self.fail(f"{value!r} is not one line of printable text", param, ctx)
        if value in TEMPORARY:
            self.fail(
                f"{value!r} is for the temporary tokens of that command, which are deleted a day after their end: "
                "write another description",
                param,
                ctx,
            )
        return str(value)


class TokenId(click.ParamType[str]):
    """
    The id of a token, or its first characters; `Store.token_id` finds the token.

    Text that cannot be an id raises `Invalid`: no token has it, so it is refused as an id that no token has.
    """

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        try:
            return str(UUID(text))
        except ValueError:
            if not re.fullmatch(rf"[0-9a-f-]{{{MIN_ID},36}}", text):
                raise Invalid(
                    f"{value!r} is not the id of a token, or at least its first {MIN_ID} characters: see responder "
                    "token list"
                ) from None
            return text


class Hostname(click.ParamType[Name]):
    """
    A hostname that may have records or tokens, even if no new token may be minted for it.

    An invalid name raises `InvalidName`: it is refused, as by commands that take several hostnames.
    """

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Name:
        try:
            return parse_hostname(str(value))
        except InvalidHostname:
            return Name.parse(str(value).removeprefix("*."))


def parse_hosts(texts: Iterable[str]) -> dict[Name, list[bool]]:
    """
    The hostnames for a certificate, each with its kinds: False for the name itself, True for its wildcard, or both.

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


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise Invalid(f"{text!r} is not a port from 1 to 65535")
    return int(text)


PORT = Parsed("port", _parse_port)
"""A port number."""

FILE = click.Path(path_type=Path, allow_dash=True, readable=False)
"""A file to read; `-` is standard input. Reading it raises what is wrong with it, as for a file that is missing."""

BASE_URL = Parsed("url", parse_base_url)
"""The URL of an API."""

SERVER = Parsed("url", parse_directory)
"""The URL of an ACME directory, or a short name for it."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""Pattern of a label in the names of Kubernetes (RFC 1123)."""

THUMBPRINT = Text(
    "thumbprint",
    r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]",
    "a thumbprint of 43 base64url characters: get one from responder thumbprint, or name the file of the key with "
    "--account-key",
)
"""A JWK thumbprint (RFC 7638): 32 octets of SHA-256 in base64url, so the last character has 4 bits only."""
