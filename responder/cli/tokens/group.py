"""`responder token`: the group of commands that mint, show, change, rotate and revoke tokens."""

from __future__ import annotations

import click

from responder.cli.tokens.grants import allow, deny
from responder.cli.tokens.listing import list_tokens, revoke, show
from responder.cli.tokens.minting import mint, rotate


@click.group()
def token() -> None:
    """Mint and manage tokens."""


for command in (mint, list_tokens, show, revoke, rotate, allow, deny):
    token.add_command(command)
