"""What a start and a reload of the service have in common: what is checked, what is to run, and what is kept of it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import structlog

from responder.config import ApiSettings, Kept, Settings, Sources
from responder.files.keyfile import NEW_KEY_FILE, read_key
from responder.process.candidate import OPTION
from responder.process.plan import Plan

_log = structlog.get_logger("serve")


def plan_of(settings: Settings) -> Plan:
    """What a supervisor is to run with these *settings*."""
    dump = settings.model_dump(mode="json")
    dump["dns"]["update"]["enabled"] = _key_file(settings) is not None
    free = {"dns": settings.dns.free_bind, "api": settings.api.free_bind, "admin": settings.admin.free_bind}
    return Plan(
        dns=[(endpoint.host, endpoint.port) for endpoint in settings.dns.listen],
        api=[(endpoint.host, endpoint.port) for endpoint in settings.api.listen],
        admin=[(endpoint.host, endpoint.port) for endpoint in settings.admin.listen],
        processes=settings.dns.processes,
        spares=1 if settings.dns.spare else 0,
        settings=dump,
        free=[section for section, is_free in free.items() if is_free],
        faults=[],
        command=_command(),
    )


def _command() -> list[str]:
    """
    What runs this command again, by the path by which it was called: a link may lead to another version by then. A
    script names the Python that it is for by itself.
    """
    script = Path(sys.argv[0])
    called = [sys.executable, *sys.orig_argv[1:]]
    if script.name != "__main__.py" and os.access(script, os.X_OK):
        called = [str(script.absolute()), *sys.argv[1:]]
    return called[: called.index(OPTION)] if OPTION in called else called


def check_pair(api: ApiSettings) -> None:
    """Check that TLS can use the key pair in the files that *api* names, if it names any. Raises `Invalid`."""
    if api.tls != "files":
        return
    from responder.api.tls import ServerTls
    from responder.certificate.files import Files

    ServerTls(Files(api, lambda _: None).read())


def prepare_key_file(settings: Settings) -> None:
    """See that the key file can be used, if one is needed; a new one is made. Raises `CannotStart`."""
    if (path := _key_file(settings)) is not None:
        read_key(path, on_new=lambda: _log.warning("the key file is new", path=str(path), reason=NEW_KEY_FILE))


def _key_file(settings: Settings) -> Path | None:
    """The key file of DNS updates; None if they are disabled."""
    return settings.tsig_key_file if settings.dns.update.enabled else None


def warn(settings: Settings) -> None:
    """Log what is valid, and will not work on the Internet."""
    for warning in settings.warnings():
        _log.warning("the configuration may not do what you expect", reason=warning)


def keep(kept: Kept, sources: Sources) -> None:
    """Store the configuration in *sources* for a start with a faulty one. A fault is logged."""
    try:
        kept.write(sources)
    except OSError as fault:
        if fault.errno != errno.EROFS:  # as in a container without a volume
            _log.warning("cannot store the configuration for the next start", reason=fault.strerror)
