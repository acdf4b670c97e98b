"""
Prints a secret, or writes it to a file, in the format that the options name. A secret is shown only once, so everything
that can fail is tried before the secret is made.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from responder.cli.context import OUTPUT, instant_text
from responder.cli.parameters import BASE_URL
from responder.cli.privatefile import private_file
from responder.cli.tokens import describing
from responder.config import Settings
from responder.errors import InvalidRequest
from responder.names import Name
from responder.tokens import credentials
from responder.tokens.credentials import Credential, Format
from responder.tokens.secret import Secret, tsig_secret
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token, describe, tsig_key_name

TEXT, JSON = "text", "json"
"""Our own formats, besides those of clients."""

_NO_URL = "server_url is empty in the output, and Caddy needs it: give the URL of the API with --url or in api.url"

_OPTIONS = (
    click.option(
        "--format",
        "format_",
        type=click.Choice([TEXT, JSON, *(form.value for form in Format)]),
        help="Format of the result: text, json (as --output), an acme-dns registration, the storage file of lego, "
        "a key file of BIND (tsig), or a Secret for Kubernetes.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Write the result to this file, which only you can read, instead of printing it.",
    ),
    click.option("--force", is_flag=True, help="Let --out replace an existing file."),
    click.option("--url", type=BASE_URL, help="URL of the API for clients, for --format lego. Default: api.url."),
    OUTPUT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The options, checked."""

    form: str
    out: Path | None
    force: bool
    url: str | None

    @contextmanager
    def ready(self, settings: Settings, grants: Iterable[Grant], *, pinned: bool) -> Iterator[HandOver]:
        """Do everything that can fail for a token with *grants*. Raises `Invalid`, `NotServed` or `CannotStart`."""
        wanted = None if self.form in (TEXT, JSON) else Format(self.form)
        if wanted is not None:
            credentials.check(wanted, grants, pinned=pinned, serving=settings.serving)
        master = _tsig_master(settings) if wanted is Format.TSIG else b""
        url = self.url or settings.api.url
        if wanted is Format.LEGO and not url:
            click.echo(f"responder: warning: {_NO_URL}", err=True)
        with nullcontext(_print) if self.out is None else private_file(self.out, replace=self.force) as write:
            yield HandOver(delivery=self, wanted=wanted, write=write, serving=settings.serving, url=url, master=master)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """Outputs a secret, once; *write* gets the text."""

    delivery: Delivery
    wanted: Format | None
    write: Callable[[str], None]
    serving: Serving
    url: str
    master: bytes = field(repr=False)

    def __call__(self, token: Token, secret: Secret, *, note: str | None = None) -> None:
        """Output *secret*; *note* explains it to the user. Raises `InvalidRequest`."""
        text = self._text(token, secret, note)
        if self.wanted is not None or self.delivery.out is not None:
            self._explain(token, note)
        elif self.delivery.form == JSON:
            describing.warn(token, self.serving)
        try:
            self.write(text)
        except InvalidRequest as fault:
            lost = "the secret is lost: make another one with responder token rotate"
            raise InvalidRequest([*fault.faults, lost]) from None

    def _text(self, token: Token, secret: Secret, note: str | None) -> str:
        if self.wanted is None:
            return (
                _as_json(token, secret, self.serving)
                if self.delivery.form == JSON
                else "".join(_as_text(token, secret, note, self.serving))
            )
        key = tsig_secret(self.master, tsig_key_name(token))
        credential = Credential(token=token, secret=secret, url=self.url, tsig_secret=key)
        return credentials.render(self.wanted, credential)

    def _explain(self, token: Token, note: str | None) -> None:
        """Print on stderr what is not part of the result."""
        place = f": writing to {self.delivery.out}" if self.delivery.out is not None else ""
        click.echo(f"id {token.id}{place}", err=True)
        for line in (*([note] if note else []), *describing.grant_lines(token, self.serving)):
            click.echo(line, err=True)


def delivered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for the output of a secret, as one argument, *delivery*."""

    @functools.wraps(command)
    def run(
        *args: Any, format_: str | None, output: str, out: Path | None, force: bool, url: str | None, **kw: Any
    ) -> None:
        if force and out is None:
            raise click.UsageError("--force needs --out")
        asked = click.get_current_context().get_parameter_source("output") is not ParameterSource.DEFAULT
        if asked and format_ not in (None, output):
            raise click.UsageError(f"--format {format_} and --output {output} contradict each other: use one of them")
        command(*args, delivery=Delivery(form=format_ or output, out=out, force=force, url=url), **kw)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), run)


def _print(text: str) -> None:
    click.echo(text, nl=False)


def _as_json(token: Token, secret: Secret, serving: Serving) -> str:
    described = describe(token, serving)
    return json.dumps({"id": described.pop("id"), "token": secret} | described, indent=2) + "\n"


def _as_text(token: Token, secret: Secret, note: str | None, serving: Serving) -> Iterator[str]:
    yield f"token        {secret}\n"
    yield f"id           {token.id}\n"
    yield f"expires      {instant_text(token.expires_at)}\n"
    if token.account_thumbprint is not None:
        yield f"pinned to    {describing.account(token)}\n"
    yield "\nKeep the token now: it is not shown again.\n"
    if note is not None:
        yield f"{note}\n"
    yield "\n"
    yield from (f"{line}\n" for line in describing.grant_lines(token, serving))
    hosts = [grant for grant in token.grants if grant.names_a_host and grant.is_served(serving)]
    yield from _caa(_BIND, [grant.hostname for grant in hosts if not grant.hostname.is_within(grant.apex)])
    yield from _caa(_ALLOW, [grant.hostname for grant in hosts if grant.hostname.is_within(grant.apex)])


_BIND = "To limit issuance to your ACME account (RFC 8657), add these records:"
_ALLOW = (
    "Our own zone allows no CA to issue, unless its records in the configuration allow one. Add these records there, "
    "and restart the service:"
)


def _caa(what_for: str, hostnames: Sequence[Name]) -> Iterator[str]:
    if hostnames:
        yield f"\n{what_for}\n"
    for hostname in hostnames:
        yield (
            f"{hostname.fqdn} 300 IN CAA 0 issue "
            '"letsencrypt.org; validationmethods=dns-01; accounturi=<URL of your ACME account>"\n'
        )


def _tsig_master(settings: Settings) -> bytes:
    """The secret that TSIG keys are derived from. Raises `InvalidRequest` or `CannotStart`."""
    from responder.files.keyfile import read_key

    if not settings.dns.update.enabled:
        raise InvalidRequest(["--format tsig: DNS updates are disabled: set dns.update.enabled = true"])
    if settings.tsig_key_file is None:
        raise InvalidRequest(
            ["--format tsig: dns.update.key_file is not set: name a file there, and copy it to every node"]
        )
    made = f"responder: made a new key file: {settings.tsig_key_file}"
    return read_key(settings.tsig_key_file, on_new=lambda: click.echo(made, err=True))
