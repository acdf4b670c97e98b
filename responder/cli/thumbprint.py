"""`responder thumbprint`: the thumbprint of an ACME account key, which tokens can be pinned to."""

from __future__ import annotations

from pathlib import Path

import click

from responder.certificate import accountkey
from responder.cli.context import OUTPUT, print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@OUTPUT
def thumbprint(file: Path, output: str) -> None:
    """
    Print the JWK thumbprint of an ACME account key.

    FILE is the key in PEM, as lego, acme.sh or cert-manager have it, or certbot's private_key.json. The thumbprint
    (RFC 7638) is no secret; a private key is not kept or sent anywhere.
    """
    text = accountkey.thumbprint(file)
    if output == "json":
        print_json({"thumbprint": text})
    else:
        click.echo(text)
