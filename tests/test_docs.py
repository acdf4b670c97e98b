"""What the documents promise: links lead somewhere, and the commands in them exist with the options they are given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from responder.cli import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("config/**/*.md")])
_LINK = re.compile(r"\[[^]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")
_COMMAND = re.compile(r"(?:^|`|\$ |\.venv/bin/)(responder (?:--config \S+ )?[a-z][^`\n|;#]*)", re.MULTILINE)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link names a file, and a heading of it if it says so."""
    for target, anchor in _LINK.findall(document.read_text()):
        file = document.parent / target
        assert file.exists(), f"{_name(document)} links to {target}"
        if anchor:
            assert anchor.removeprefix("#") in _anchors(file), f"{_name(document)} links to {target}{anchor}"


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_commands_exist(document: Path) -> None:
    """Every `responder ...` is a command of the program, and takes the options that it is shown with."""
    for text in _commands(document.read_text()):
        _check(text, document)


def _commands(text: str) -> Iterator[str]:
    joined = text.replace("\\\n", " ")
    yield from (match.strip() for match in _COMMAND.findall(joined))


def _check(text: str, document: Path) -> None:
    words = shlex.split(text.replace("'", ""), posix=False)[1:]
    if words[:1] == ["--config"]:
        words = words[2:]
    command: click.Command = cli
    with click.Context(cli) as context:
        while words and isinstance(command, click.Group) and (found := command.get_command(context, words[0])):
            command, words = found, words[1:]
    if command is cli:
        assert words[0] == "responder", f"{_name(document)}: there is no such command: {text}"
        return
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        option = word.partition("=")[0].rstrip(",.)")
        if option.startswith("--"):
            assert option in known | {"--help"}, f"{_name(document)}: {option} is no option: {text}"
