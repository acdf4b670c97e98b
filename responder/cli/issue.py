"""
`responder issue`: a real certificate through the running service, as proof that the whole chain works.

Everything that can be found out beforehand is, before a CA is asked for anything. The token that it mints for itself
ends with it, whatever happens, and with the token whatever it put into the DNS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from responder.config import Settings, parse_contact
from responder.errors import CannotStart, CertificateRefused, Invalid, NotFound
from responder.files import atomicfile
from responder.files.namedfile import STDIN
from responder.names import Name
from responder.store import NewToken, Store
from responder.tls.keypair import KeyPair, key_pem, new_key
from responder.tokens.secret import Secret, digest, mint_secret
from responder.tokens.token import Grant

TOKEN_LIFETIME = timedelta(hours=1)
"""Of the token, and of its values: the end of both if this program cannot end them itself."""

ACCOUNT_KEY = "acme-account.pem"
"""The file of the ACME account's key, beside the database."""


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
    """What is asked for on the command line, checked as far as that can be done without a network."""

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
    """The certificate; None after a dry run."""
    account = await wanted.authority.log_in(contact=wanted.email, binding=wanted.binding)
    terms = f"; with it, you agreed to {account.terms}" if account.terms else ""
    _say(f"account {account.url} ({f'new{terms}' if account.is_new else 'as before'})")
    async with _token(store, settings, wanted.hostnames) as (secret, grants), _solver(wanted, secret) as solver:
        _say(f"the API at {wanted.url} takes a token for {', '.join(map(str, wanted.hostnames))}")
        try:
            return await obtain(wanted.authority, wanted.names, solver, progress=_say, dry_run=wanted.dry_run)
        except CertificateRefused as refusal:
            for grant in grants:
                if str(grant.hostname) == refusal.hostname and grant.cname is not None:
                    raise CertificateRefused(f"{refusal}\nIs this in the DNS?\n  {grant.cname}") from None
            raise


@asynccontextmanager
async def _token(
    store: Store, settings: Settings, hostnames: Sequence[Name]
) -> AsyncIterator[tuple[Secret, list[Grant]]]:
    """A token for *hostnames*, and what it is granted; revoked at the end, however that comes about."""
    owned = await store.owned(hostnames)
    grants = [owned.get(hostname) or derive(settings, hostname) for hostname in hostnames]
    for grant in grants:
        grant.check_served(settings.serving)
    secret, now = mint_secret(), datetime.now(UTC)
    new = NewToken(
        digest=digest(secret),
        description="responder issue",
        grants=tuple(grants),
        created_at=now,
        expires_at=now + TOKEN_LIFETIME,
    )
    try:
        await store.mint(new)
        yield secret, grants
    finally:
        with suppress(NotFound):  # it was never minted
            await asyncio.shield(store.revoke(new.id, at=datetime.now(UTC)))
            _say("the token is revoked, nothing is left in the DNS")


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
        raise click.UsageError("an external account binding is --eab-kid and one of --eab-key-file and --eab-key")
    if key_file is not None:
        return Binding.read(kid, key_file, pipes=True)
    click.echo(f"responder: warning: {_EXPOSED}", err=True)
    return Binding.parse(kid, key or "")


_EXPOSED = "--eab-key: it is visible in the process list: prefer --eab-key-file"


def _account_key(settings: Settings, path: Path | None) -> accountkey.Key:
    """The key of our account with any CA, made when it is first needed. Raises `Invalid` or `CannotStart`."""
    if path is None:
        database = settings.database.path
        if database is None:
            raise Invalid(
                "with PostgreSQL there is no data directory: name a file for the account's key, --account-key"
            )
        path = database.parent / ACCOUNT_KEY
    with _explaining(f"cannot write {path}"):
        if path != STDIN and not path.exists() and atomicfile.create(path, key_pem(new_key()), of_directory=True):
            _say(f"made a key for an ACME account: {path}")
    key = accountkey.read(path)
    if not accountkey.is_private(key):
        raise Invalid(f"{path}: this is a public key: name the file of the private one")
    return key


def _own_url(settings: Settings) -> str:
    """Where this machine reaches the API. Raises `Invalid`."""
    endpoint = settings.api.listen[0].reachable
    if endpoint.port == 0:
        raise Invalid("api.listen lets the system choose a port: say where the API is, with --url")
    return f"{'http' if settings.api.tls == 'off' else 'https'}://{endpoint}"


def _keep(pair: KeyPair, wanted: _Wanted) -> dict[str, str]:
    """Write the pair where it was asked for, and say what it is. Raises `CannotStart`."""
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
        with _explaining(f"cannot write {path}"):
            atomicfile.write(path, content, mode=mode)
    return shown | {"certificate_file": str(certificate), "private_key_file": str(key)}


def _check_writable(directory: Path) -> None:
    """See that files can be written in *directory*, which is made if it is not there. Raises `CannotStart`."""
    with _explaining(f"cannot write in {directory}", "choose another directory"):
        directory.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=directory).close()


@contextmanager
def _explaining(what: str, *mend: str) -> Iterator[None]:
    """Say *what* could not be done, why, and what to do. Raises `CannotStart`."""
    try:
        yield
    except OSError as fault:
        raise CannotStart(": ".join([what, (fault.strerror or type(fault).__name__).lower(), *mend])) from None


def _say(text: str) -> None:
    """One step that is done, on stderr: stdout is for the result."""
    click.echo(f"  {text}", err=True)
