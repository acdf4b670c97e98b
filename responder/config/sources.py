"""
Reads the settings from one TOML file and from the environment, which overrides the file.

All faults of the file, of the variables and of the values are reported together.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource

from responder.config.fields import Faults
from responder.config.rawfaults import faults_in, without_misplaced
from responder.config.settings import Settings, ZoneSettings
from responder.errors import Invalid, InvalidConfiguration
from responder.files import namedfile
from responder.foreign import fault_text

PREFIX = "RESPONDER_"
"""The names of all our environment variables begin with this."""

OTHER_VARIABLES = frozenset({f"{PREFIX}CONFIG", f"{PREFIX}REQUIRE_ALL"})
"""Our variables that are not settings: the path of the file, and whether tests may be skipped."""

PLACES = (Path("responder.toml"), Path("/etc/responder/responder.toml"))
"""The paths to try if neither the command line nor the environment names a file."""

MAX_FILE = 16 << 20
"""Octets of a configuration. Tens of thousands of static records take a tenth of this."""

EXAMPLE = "config/responder.example.toml"


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """
    Read the settings from the file at *path*, else at `RESPONDER_CONFIG`, else in `PLACES`, and from *environ*.

    Raises `InvalidConfiguration` with everything that is wrong with them.
    """
    return Sources.read(path, environ).load()


@dataclass(frozen=True, slots=True)
class Sources:
    """What settings are made from: the *text* of the file at *path*, both "" without one, and our *variables*."""

    path: str
    text: str = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, path: Path | None, environ: Mapping[str, str]) -> Self:
        """As `load`, without checking what is in them. Raises `InvalidConfiguration` for a file that cannot be read."""
        file, text = _read_file(path, environ)
        ours = {name: environ[name] for name in environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES}
        return cls(str(file or ""), text, ours)

    def load(self) -> Settings:
        """Raises `InvalidConfiguration` with everything that is wrong with them."""
        variables = _Variables(self.variables)
        raw, misplaced = without_misplaced(_merge(_parse(self.path, self.text), variables()))
        faults = variables.faults + misplaced + faults_in(raw)
        try:
            settings = Settings.model_validate(raw)
        except ValidationError as error:
            described = (fault for details in error.errors() for fault in _describe(details, self.variables))
            raise InvalidConfiguration([*described, *faults], self.path) from None
        if faults:
            raise InvalidConfiguration(faults, self.path)
        return settings


def _named_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that the command line or the environment names; None if neither does."""
    variable = environ.get(f"{PREFIX}CONFIG")
    return path or (Path(variable) if variable else None)


def _find_file(environ: Mapping[str, str]) -> Path | None:
    """The first of `PLACES` that exists; None if there is no file, and the environment has the zones."""
    found = next((place for place in PLACES if not _is_missing(place)), None)
    if found is None and f"{PREFIX}ZONES" not in environ:
        places = " or ".join(map(str, PLACES))
        raise InvalidConfiguration([f"there is no {places}: copy {EXAMPLE} there, or name a file with --config"])
    return found


def _is_missing(place: Path) -> bool:
    try:
        place.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it exists, and reading it will raise the reason
    return False


def _read_file(path: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """
    The file to read, and its text; None and "" if the environment alone has the settings.

    A file in the working directory, which may belong to another user, has to be ours unless it is named.
    """
    named = _named_file(path, environ)
    path = named or _find_file(environ)
    if path is None:
        return None, ""
    ours = named is None and not path.is_absolute()
    try:
        return path, namedfile.read_text(path, MAX_FILE, pipes=True, ours=ours)
    except Invalid as error:
        raise InvalidConfiguration([str(error)]) from None


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration([f"the file is not TOML: {error}"], path) from None


def _merge(file: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """*file*, with its keys replaced by those of *variables*, in all nested sections."""
    merged = dict(file)
    for key, value in variables.items():
        both = isinstance(value, dict) and isinstance(file.get(key), dict)
        merged[key] = _merge(file[key], value) if both else value
    return merged


class _Variables(EnvSettingsSource):
    """The settings in our variables of *environ*, in the shape of the file; *faults* has the unknown variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        names = [*_names(Settings, PREFIX)]
        self.faults = [
            f"{name}: there is no such setting{_suggestion(_nearest_variable(name, names))}"
            for name in sorted(environ)
            if name not in names and not _SERVICE_LINK.fullmatch(name)
        ]
        self._known = {name.lower(): environ[name] for name in environ if name in names}
        super().__init__(cast("type[BaseSettings]", Settings), env_prefix=PREFIX.lower(), env_nested_delimiter="__")

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._known

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value  # it is not JSON, so the validation of the field rejects it


def _section(place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that is at *place* in the settings."""
    model: type[BaseModel] = Settings
    for part in place:
        if part == "zones":
            return ZoneSettings
        model = type(model.model_fields[str(part)].default)
    return model


def _names(section: type[BaseModel], prefix: str) -> Iterator[str]:
    """The variable of every key of a section, and of those in the sections within it."""
    for key, info in section.model_fields.items():
        yield f"{prefix}{key}".upper()
        if isinstance(info.default, BaseModel):
            yield from _names(type(info.default), f"{prefix}{key}__")


_SERVICE_LINK = re.compile(
    rf"{PREFIX}(?!\w*__)(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets if a Service is named "responder" or "responder-dns". Ours have `__`."""


def _nearest_variable(name: str, known: Sequence[str]) -> str | None:
    """The variable that was probably meant. The common prefix is ignored, because it makes all names similar."""
    # A list or table is one variable, in JSON, and not one for each of its elements.
    above = [other for other in known if name.startswith(f"{other}__")]
    if above and not any(other.startswith(f"{above[-1]}__") for other in known):
        return above[-1]
    near = _nearest(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known])
    return near and f"{PREFIX}{near}"


def _nearest(word: str, known: Iterable[str], *, likeness: float = 0.75) -> str | None:
    return next(iter(get_close_matches(word, known, n=1, cutoff=likeness)), None)


def _suggestion(near: str | None) -> str:
    return f": did you mean {near}?" if near else f": see {EXAMPLE}"


def _guess(place: tuple[int | str, ...]) -> str:
    """What may be meant by the setting at *place*, which does not exist."""
    *section, key = place
    fields = _section(tuple(section)).model_fields
    if near := _nearest(str(key), fields, likeness=0.6):  # "dsn" is "dns"
        return _suggestion(near)
    homes = [home for home, model in _sections(Settings) if key in model.model_fields]
    return f": it is a setting of {homes[0]}: move it there" if len(homes) == 1 else _suggestion(None)


def _sections(model: type[BaseModel], heading: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The heading and the model of every section within *model*."""
    if not heading:
        yield "[[zones]]", ZoneSettings
    for key, info in model.model_fields.items():
        if isinstance(info.default, BaseModel):
            within = f"{heading}{key}"
            yield f"[{within}]", type(info.default)
            yield from _sections(type(info.default), f"{within}.")


def _describe(details: ErrorDetails, environ: Mapping[str, str]) -> Iterator[str]:
    """The faults that one error of pydantic stands for, as text."""
    error = details.get("ctx", {}).get("error")
    within = error.within if isinstance(error, Faults) else ()
    where = _path((*details["loc"], *within))
    keys = [str(part).upper() for part in (*details["loc"], *within)]
    for variable in (f"{PREFIX}{'__'.join(keys[:depth])}" for depth in range(len(keys), 0, -1)):
        if variable in environ:
            where = f"{variable} ({where})"
            break
    for fault in error.faults if isinstance(error, Faults) else [_text(details)]:
        yield f"{where}: {fault}"


def _path(loc: tuple[int | str, ...]) -> str:
    """The place of a setting, such as `zones[0].nameservers."ns1.example.com"[0]`."""
    parts = (part for part in loc if part != "[key]")
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" if part.isidentifier() else f'."{part}"' for part in parts
    )
    return text.removeprefix(".")


def _text(details: ErrorDetails) -> str:
    section = details["loc"][0]
    match details["type"]:
        case "missing" if section == "zones" and len(details["loc"]) == 1:
            return f"there is no zone: write [[zones]] as in {EXAMPLE}"
        case "extra_forbidden":
            return f"there is no such setting{_guess(details['loc'])}"
        case "tuple_type" if details["loc"] == ("zones",):
            return f"must be [[zones]] as in {EXAMPLE}; in the environment, a list in JSON"
        case "tuple_type":
            return 'must be a list, as in ["..."]; in the environment, in JSON'
        case "model_type" | "dict_type":
            return "must be a table"
        case _:
            return fault_text(details)
