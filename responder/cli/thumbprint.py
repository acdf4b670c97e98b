"""`responder thumbprint`: prints the thumbprint of an ACME account key, for tokens that are pinned to the account."""

from __future__ import annotations

from pathlib import Path

import click

from responder.certificate import accountkey
from responder.cli.context import OUTPUT, print_json
from responder.cli.parameters import FILE


@click.command()
@click.argument("file", type=FILE)
@OUTPUT
def thumbprint(file: Path, output: str) -> None:
    """
    Print the JWK thumbprint of an ACME account key.

    FILE is the key in PEM, as lego, acme.sh and cert-manager store it, or certbot's private_key.json. Use - for stdin.
    The thumbprint (RFC 7638) is not a secret. The command does not store the key or send it anywhere.
    """
    text = accountkey.thumbprint(file)
    if output == "json":
        print_json({"thumbprint": text})
    else:
        click.echo(text)
