"""`responder config`: checks the configuration, and shows the values in force."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from responder.cli.context import OUTPUT, Context, print_json
from responder.cli.starting import check_pair
from responder.config import Settings, Sources
from responder.errors import CannotStart, Invalid, InvalidConfiguration
from responder.files.keyfile import read_key


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@OUTPUT
@click.pass_obj
def check(context: Context, output: str) -> None:
    """Show all faults of the configuration, or the values in force. The files that it names are checked, too."""
    try:
        settings = _checked(context)
    except InvalidConfiguration as error:
        if output == "text":
            raise
        print_json({"valid": False, "file": error.file or None, "faults": list(error.faults)})
        raise SystemExit(1) from None
    if output == "json":
        print_json({"valid": True, "settings": settings.effective(), "warnings": settings.warnings()})
        return
    for key, value in _flatten(settings.effective()):
        click.echo(f"{key} = {json.dumps(value)}")
    for warning in settings.warnings():
        click.echo(f"responder: warning: {warning}", err=True)
    click.echo("configuration is valid", err=True)


def _checked(context: Context) -> Settings:
    """The settings, with their files. Raises `InvalidConfiguration`."""
    sources = Sources.read(context.config, os.environ)
    settings = sources.load()
    if faults := [*_file_faults(settings)]:
        raise InvalidConfiguration(faults, sources.path)
    return settings


def _file_faults(settings: Settings) -> Iterator[str]:
    """The faults of the files that the configuration names, which would otherwise show at a restart only."""
    for check in (_check_tls, _check_binding, _check_roots, _check_key_file):
        try:
            check(settings)
        except (Invalid, CannotStart) as fault:
            yield str(fault)


def _check_tls(settings: Settings) -> None:
    if settings.api.tls == "files":
        check_pair(settings.api)


def _check_binding(settings: Settings) -> None:
    acme = settings.api.acme
    if settings.api.tls == "acme" and acme.eab_kid:
        from responder.certificate.authority import Binding

        with _naming("api.acme.eab_hmac_key_file"):
            Binding.read(acme.eab_kid, Path(acme.eab_hmac_key_file))


def _check_roots(settings: Settings) -> None:
    acme = settings.api.acme
    if settings.api.tls == "acme" and acme.ca_file:
        from responder.certificate.network import check_roots

        with _naming("api.acme.ca_file"):
            check_roots(acme.ca_file)


def _check_key_file(settings: Settings) -> None:
    """A missing key file is made when it is first needed, and only the service may read it: neither is a fault."""
    path = settings.tsig_key_file
    if settings.dns.update.enabled and path is not None and os.access(path, os.F_OK):
        read_key(path)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    try:
        yield
    except Invalid as fault:
        raise Invalid(f"{setting}: {fault}") from None


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
