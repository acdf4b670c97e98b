"""
Apache as the ACME client: mod_md, unmodified, with the hook that we ship.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

from .lego import Certificate
from .pebble import Authority
from .programs import LOGS, require, running, wait_until

_SECONDS = 60.0
"""For one certificate; it takes a few, and half a minute if something is tried again."""

_LIBRARIES = Path("/usr/lib/apache2/modules")

_CONFIGURATION = """
{modules}
ServerRoot {directory}
ServerName 127.0.0.1
PidFile apache.pid
ErrorLog error.log
LogLevel warn md:debug
DefaultRuntimeDir {directory}
Listen 127.0.0.1:{port}
{user}

MDStoreDir {directory}/md
MDCertificateAuthority {authority.directory_url}
MDCACertificateFile {tls}
MDCertificateAgreement accepted
MDContactEmail hostmaster@example.com
MDPrivateKeys P-256
MDCAChallenges dns-01
MDChallengeDns01Version 2
MDChallengeDns01 {hook}
MDInitialDelay 0s
MDomain {names}

<VirtualHost *:{port}>
    ServerName {name}
    SSLEngine on
</VirtualHost>
"""

_MODULES = ("mpm_event", "authz_core", "socache_shmcb", "ssl", "md")
"""Of Debian's Apache, which has some more built in."""

_USER = "www-data"
"""Who Apache is when root starts it, as Debian has it."""


@contextmanager
def obtaining(
    authority: Authority, hook: Path, environment: Mapping[str, str], *names: str
) -> Iterator[Callable[[], Certificate]]:
    """
    Have Apache obtain one certificate for all the names, until the block ends; gives what waits for that certificate.

    The hook finds *environment*. It is copied, as is the key that KEY names there: pytest's directories are closed to
    the user that Apache changes to.
    """
    directory = Path(tempfile.mkdtemp(prefix="responder-apache-"))
    try:
        directory.chmod(0o755)
        LOGS.append(directory / "error.log")
        key, tls, program = (_copy(Path(each), directory) for each in (environment["KEY"], authority.tls, hook))
        configuration = directory / "apache.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                modules="".join(f"LoadModule {each}_module {_LIBRARIES}/mod_{each}.so\n" for each in _MODULES),
                directory=directory,
                port=free_port(),
                user=f"User {_USER}\nGroup {_USER}" if os.geteuid() == 0 else "",
                authority=authority,
                tls=tls,
                hook=program,
                name=names[0],
                names=" ".join(names),
            )
        )
        apache = [require("apache2"), "-D", "FOREGROUND", "-f", str(configuration)]
        with running(apache, directory, environment={**environment, "KEY": str(key)}):
            file = directory / "md" / "staging" / names[0] / "pubcert.p-256.pem"

            def obtained() -> Certificate:
                wait_until(file.exists, f"Apache has a certificate: {configuration}", _SECONDS)
                return Certificate(file, file)

            yield obtained
    finally:
        shutil.rmtree(directory)


def _copy(file: Path, directory: Path) -> Path:
    """A copy that everybody may read, and run if the file is a program."""
    copy = Path(shutil.copy(file, directory))
    copy.chmod(0o755 if file.suffix == ".sh" else 0o644)
    return copy
