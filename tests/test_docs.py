"""What the documents promise: links lead somewhere, and the commands in them exist with the options they are given."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from responder.cli.commands import cli
from tests.support.places import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("config/**/*.md")])
_LINK = re.compile(r"\[[^]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")
_PATH = re.compile(r"`((?:responder|tests|docs|config|migrations)/[^`\s*]+)`")
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
def test_files_exist(document: Path) -> None:
    """Every path that a document names as `responder/...`, `tests/...` or the like is there."""
    missing = [path for path in _PATH.findall(document.read_text()) if not (ROOT / path).exists()]
    assert [] == missing


def test_places_exist() -> None:
    """Each answer of CONTRIBUTING.md to "Where is it?" names a file, and something that this file defines."""
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where is it?")[2].partition("\n## ")[0]
    places = re.findall(r"\| `([^`]+)` \| `(?:\w+\.)?(\w+)` \|$", table, re.MULTILINE)

    assert len(places) == table.count("\n| ") - 1
    for path, name in places:
        assert re.search(rf"^ *(?:def|async def|class)? ?{name}\b", (ROOT / path).read_text(), re.MULTILINE), (
            path,
            name,
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_commands_exist(document: Path) -> None:
    """Every `responder ...` is a command of the program, and takes the options that it is shown with."""
    for text in _commands(document.read_text()):
        _check(text, document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_variables_are_for_the_shell(document: Path) -> None:
    """Each line of an environment file has the same value in systemd and in a shell, where `&` ends a command."""
    for line in re.findall(r"^RESPONDER_\w+=.*$", document.read_text(), re.MULTILINE):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        assert 1 == len([*words]), line


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


def test_the_design_has_every_module() -> None:
    """The table of modules in `docs/design.md` and the tree name the same: the top, and what is in its pure folders."""
    table = (ROOT / "docs/design.md").read_text().partition("## Modules")[2].partition("\n## ")[0]
    first_column = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = sorted(name for cell in first_column for name in re.findall(r"`([a-z.]+)`", cell))
    top = _modules(ROOT / "responder")
    inner = [
        f"{folder}.{name}" for folder in ("dns", "tokens", "process") for name in _modules(ROOT / "responder" / folder)
    ]
    assert sorted(top + inner) == documented


def test_the_top_is_short() -> None:
    """The top of the package shows what a person looks for, at one glance."""
    assert len(_modules(ROOT / "responder")) <= 26


def _modules(folder: Path) -> list[str]:
    return [path.stem for path in folder.iterdir() if not path.name.startswith("__")]


@pytest.mark.parametrize("door", sorted(ROOT.glob("responder/**/__init__.py")), ids=_name)
def test_doors_have_no_logic(door: Path) -> None:
    """An `__init__.py` explains and exports, and does nothing else."""
    explanation, *rest = ast.parse(door.read_text()).body
    assert isinstance(explanation, ast.Expr), "it starts with a docstring"
    for statement in rest:
        exports = isinstance(statement, ast.Assign) and [ast.unparse(each) for each in statement.targets] == ["__all__"]
        assert exports or isinstance(statement, ast.ImportFrom), ast.unparse(statement)


def test_one_name_one_thing() -> None:
    """No two modules define a class or a type of the same name. Constants and private names may agree."""
    places: dict[str, list[str]] = {}
    for module in sorted(ROOT.glob("responder/**/*.py")):
        for name in _defined(ast.parse(module.read_text())):
            places.setdefault(name, []).append(_name(module))

    assert {} == {name: modules for name, modules in places.items() if len(modules) > 1}


def _defined(module: ast.Module) -> Iterator[str]:
    """The public classes and types of *module*."""
    for statement in module.body:
        names: list[str] = []
        if isinstance(statement, ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        # Names in capitals are constants, or type variables.
        yield from (name for name in names if not (name.startswith("_") or name.isupper() or name.islower()))
