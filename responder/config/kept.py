"""
A service stores the configuration of its last successful start. If the configuration cannot be used at a later start,
the service uses the stored one, as if it had not been restarted.

It is stored in STATE_DIRECTORY (see systemd.exec(5)); without that variable, nothing is stored. The URL of the database
in the environment is not stored, because its password must not be in a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from responder.config.sources import MAX_FILE, PREFIX, Sources
from responder.errors import Invalid
from responder.files import atomicfile, namedfile

NAME = "last-configuration.json"

_SECRET = f"{PREFIX}DATABASE__URL"


@dataclass(frozen=True, slots=True)
class Kept:
    """The file at *place*, or None, and the variable that is not stored in it."""

    place: Path | None
    _secret: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        directory = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        secret = {name: value for name, value in environ.items() if name == _SECRET}
        return cls(Path(directory) / NAME if directory else None, secret)

    def read(self) -> Sources | None:
        """The sources of the last start that worked; None if there are none, or they cannot be read."""
        if self.place is None:
            return None
        try:
            kept = json.loads(namedfile.read_text(self.place, 2 * MAX_FILE))
            return Sources(kept["path"], kept["text"], {**kept["variables"], **self._secret})
        except (Invalid, ValueError, KeyError, TypeError):
            return None

    def write(self, sources: Sources) -> None:
        """Store *sources* for the next start. Raises `OSError`."""
        if self.place is None or sources == self.read():
            return
        variables = {name: value for name, value in sources.variables.items() if name != _SECRET}
        text = json.dumps({"path": sources.path, "text": sources.text, "variables": variables})
        with atomicfile.new_file(self.place, of_directory=True) as new:
            new.write(text.encode())
            new.replace()
