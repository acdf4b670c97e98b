"""`responder config`: whether the configuration is valid, and what it amounts to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from responder.cli.context import OUTPUT, Context, print_json


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@OUTPUT
@click.pass_obj
def check(context: Context, output: str) -> None:
    """Check the configuration, all faults at once, and print the effective values."""
    settings = context.settings
    if output == "json":
        print_json({"settings": settings.effective(), "warnings": settings.warnings()})
        return
    for key, value in _flatten(settings.effective()):
        click.echo(f"{key} = {json.dumps(value)}")
    for warning in settings.warnings():
        click.echo(f"responder: warning: {warning}", err=True)
    click.echo("configuration is valid", err=True)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
