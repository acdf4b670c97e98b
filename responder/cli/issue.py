"""
`responder issue`: obtains a certificate through the running service, which proves that the whole chain works.

It checks all that it can before its first request to a CA. It mints a token for itself, and revokes it at the end, also
after a failure; that removes the values, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click

from responder.certificate import accountkey
from responder.certificate.authority import Authority, Binding
from responder.certificate.order import obtain
from responder.certificate.remote import RemoteSolver, solving
from responder.cli.context import OUTPUT, Access, Context, ended_by_signals, instant_text, print_json
from responder.cli.parameters import FILE, SERVER, Parsed, Renamed, check_stdin, parse_hosts
from responder.cli.tokens.grants import derive
from responder.cli.tokens.temporary import temporary_token
from responder.config import Settings, parse_contact
from responder.errors import CannotStart, CertificateRefused, Invalid
from responder.files import atomicfile
from responder.files.namedfile import STDIN
from responder.foreign import explaining
from responder.names import Name
from responder.store import Store
from responder.tls.keypair import KeyPair, key_pem, new_key
from responder.tokens.network import is_within
from responder.tokens.secret import Secret
from responder.tokens.token import Grant

TOKEN_LIFETIME = timedelta(hours=1)
"""Lifetime of the token and its values, in case this program cannot remove them itself."""

ACCOUNT_KEY = "acme-account.pem"
"""Name of the file with the key of the ACME account, in the directory of the database."""


@click.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option(
    "--server",
    "--directory",
    cls=Renamed,
    required=True,
    type=SERVER,
    help="ACME directory of the CA: letsencrypt, letsencrypt-staging, or a URL. By using it you agree to its terms.",
)
@click.option(
    "--email",
    "--contact",
    cls=Renamed,
    default="",
    type=Parsed("address", parse_contact),
    help="E-mail address that the CA may write to. Default: none.",
)
@click.option("--eab-kid", default="", help="Key identifier of the external account, if the CA requires one.")
@click.option("--eab-key-file", type=FILE, help="File with the HMAC key of the external account. Use - for stdin.")
@click.option("--eab-key", help="The HMAC key itself, visible in the process list; prefer --eab-key-file.")
@click.option(
    "--account-key",
    type=FILE,
    help="File with the key of the ACME account; it is created if it does not exist. Use - for stdin. "
    "Default: acme-account.pem in the directory of the database.",
)
@click.option(
    "--server-ca-file",
    "--ca-file",
    cls=Renamed,
    default="",
    help="File with the root certificate, in PEM, that the HTTPS certificate of a private CA is signed with.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory to write the certificate and its private key to. Default: keep neither.",
)
@click.option("--url", help="URL of the API. Default: this machine, at the first address of api.listen.")
@click.option("--dry-run", is_flag=True, help="Have the CA validate the hostnames, but do not request a certificate.")
@OUTPUT
@click.pass_obj
def issue(context: Context, /, hosts: tuple[str, ...], output: str, **options: Any) -> None:
    """Obtain a certificate through the running service."""
    wanted = _Wanted.check(context.settings, hosts, **options)

    async def work(store: Store) -> KeyPair | None:
        with ended_by_signals():
            return await _issue(store, context.settings, wanted)

    pair = context.with_store(work, Access.CHANGE)
    result = {"hostnames": wanted.names} | (_keep(pair, wanted) if pair is not None else {})
    if output == "json":
        print_json(result)
        return
    for key, value in result.items():
        click.echo(f"{key.replace('_', ' '):<17} {' '.join(value) if isinstance(value, list) else value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The arguments, checked as far as that is possible without a network."""

    hostnames: list[Name]
    names: list[str]
    authority: Authority
    email: str
    binding: Binding | None
    url: str
    is_local: bool
    out: Path | None
    dry_run: bool

    @classmethod
    def check(
        cls,
        settings: Settings,
        hosts: Sequence[str],
        *,
        server: str,
        email: str,
        eab_kid: str,
        eab_key_file: Path | None,
        eab_key: str | None,
        account_key: Path | None,
        server_ca_file: str,
        out: Path | None,
        url: str | None,
        dry_run: bool,
    ) -> _Wanted:
        """Raises `Invalid`, or `CannotStart` for a directory that cannot be written."""
        check_stdin(eab_key_file, account_key)
        wanted = parse_hosts(hosts)
        binding = _binding(eab_kid, eab_key_file, eab_key)
        if out is not None:
            _check_writable(out)
        return cls(
            hostnames=list(wanted),
            names=[f"*.{name}" if wildcard else f"{name}" for name, kinds in wanted.items() for wildcard in kinds],
            authority=Authority(server, _account_key(settings, account_key), ca_file=server_ca_file),
            email=email,
            binding=binding,
            url=url or _own_url(settings),
            is_local=url is None,
            out=out,
            dry_run=dry_run,
        )


async def _issue(store: Store, settings: Settings, wanted: _Wanted) -> KeyPair | None:
    """Obtain the certificate; None after a dry run."""
    account = await wanted.authority.log_in(contact=wanted.email, binding=wanted.binding)
    terms = f"; you agreed to the terms at {account.terms}" if account.terms else ""
    _report(f"ACME account {account.url} ({f'new{terms}' if account.is_new else 'existing'})")
    async with _token(store, settings, wanted.hostnames) as (secret, grants), _solver(wanted, secret) as solver:
        _report(f"the API at {wanted.url} accepts a token for {', '.join(map(str, wanted.hostnames))}")
        try:
            return await obtain(wanted.authority, wanted.names, solver, progress=_report, dry_run=wanted.dry_run)
        except CertificateRefused as refusal:
            for grant in grants:
                if str(grant.hostname) == refusal.hostname and grant.cname is not None:
                    raise CertificateRefused(f"{refusal}\nCheck that the DNS has this record:\n{grant.cname}") from None
            raise


@asynccontextmanager
async def _token(
    store: Store, settings: Settings, hostnames: Sequence[Name]
) -> AsyncIterator[tuple[Secret, list[Grant]]]:
    """A token for *hostnames*, and its grants. It is revoked at the end of the block, also after an error."""
    owned = await store.owned(hostnames)
    grants = [owned.get(hostname) or derive(settings, hostname) for hostname in hostnames]
    for grant in grants:
        grant.check_served(settings.serving)
    token = temporary_token(store, grants, description="responder issue", lifetime=TOKEN_LIFETIME)
    minted = False
    try:
        async with token as (_, secret):
            minted = True
            yield secret, grants
    finally:
        if minted:
            _report("revoked the token, and removed its values")


@asynccontextmanager
async def _solver(wanted: _Wanted, secret: Secret) -> AsyncIterator[RemoteSolver]:
    lifetime = int(TOKEN_LIFETIME.total_seconds())
    async with solving(wanted.url, secret, lifetime=lifetime, trust_anybody=wanted.is_local) as solver:
        await solver.check()
        yield solver


def _binding(kid: str, key_file: Path | None, key: str | None) -> Binding | None:
    """Raises `Invalid`, or `UsageError` unless the options go together."""
    if not kid and key_file is None and key is None:
        return None
    if not kid or (key_file is None) == (key is None):
        raise click.UsageError("an external account needs --eab-kid, and one of --eab-key-file and --eab-key")
    if key_file is not None:
        return Binding.read(kid, key_file, pipes=True)
    click.echo(f"responder: warning: {_EXPOSED}", err=True)
    return Binding.parse(kid, key or "")


_EXPOSED = "--eab-key: it is visible in the process list: prefer --eab-key-file"


def _account_key(settings: Settings, path: Path | None) -> accountkey.Key:
    """The key of our account with the CA, which is made when it is first needed. Raises `Invalid` or `CannotStart`."""
    if path is None:
        database = settings.database.path
        if database is None:
            raise Invalid("PostgreSQL has no directory for the key of the ACME account: name a file with --account-key")
        path = database.parent / ACCOUNT_KEY
    with explaining(partial(_unwritable, path)):
        if path != STDIN and not path.exists() and atomicfile.create(path, key_pem(new_key()), of_directory=True):
            _report(f"made a key for the ACME account: {path}")
    key = accountkey.read(path)
    if not accountkey.is_private(key):
        raise Invalid(f"{path}: this is a public key: name the file of the private key")
    return key


def _own_url(settings: Settings) -> str:
    """The URL of the API on this machine. Raises `Invalid`."""
    endpoint = settings.api.listen[0].reachable
    if endpoint.port == 0:
        raise Invalid("the port in api.listen is 0, which means any port: give the URL of the API with --url")
    if settings.api.proxy_protocol and is_within(endpoint.host, settings.api.trusted_proxies):
        raise Invalid(
            f"the API accepts {endpoint.host} as a proxy only (proxy_protocol): give the URL of the proxy with --url"
        )
    return f"{'http' if settings.api.tls == 'off' else 'https'}://{endpoint}"


def _keep(pair: KeyPair, wanted: _Wanted) -> dict[str, str]:
    """Write the pair into the directory of --out, if there is one. Returns what to print. Raises `CannotStart`."""
    shown = {
        "issuer": pair.issuer,
        "not_before": instant_text(pair.not_before),
        "not_after": instant_text(pair.not_after),
    }
    if wanted.out is None:
        return shown
    stem = wanted.names[0].replace("*", "_")
    certificate, key = wanted.out / f"{stem}.crt", wanted.out / f"{stem}.key"
    for path, content, mode in ((key, pair.key, atomicfile.PRIVATE), (certificate, pair.chain, 0o644)):
        with explaining(partial(_unwritable, path)):
            atomicfile.write(path, content, mode=mode)
    return shown | {"certificate_file": str(certificate), "private_key_file": str(key)}


def _check_writable(directory: Path) -> None:
    """Check that files can be written to *directory*, which is made if it is missing. Raises `CannotStart`."""
    with explaining(lambda why: CannotStart(f"cannot write in {directory}: {why}: choose another directory")):
        directory.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=directory).close()


def _unwritable(path: Path, reason: str) -> CannotStart:
    return CannotStart(f"cannot write {path}: {reason}")


def _report(text: str) -> None:
    """Print a step that is done on stderr, because stdout is for the result."""
    click.echo(f"  {text}", err=True)
