"""
Faults that show only in the raw settings, as they are in the file: what the typed settings merge, drop or never see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from responder.config.fields import Endpoint
from responder.config.settings import Settings, ZoneSettings
from responder.errors import Invalid
from responder.names import Name


def faults_in(raw: Mapping[str, Any]) -> list[str]:
    """All of these faults; `without_misplaced` has moved what was misplaced."""
    return _overlapping_zones(raw) + _repeated_nameservers(raw) + _repeated_endpoints(raw)


def without_misplaced(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """
    *raw* with the settings of zones where they belong, and a fault for each that is below `[zones.nameservers]`.

    In TOML, all lines after the heading of a table belong to that table, so such a setting looks like a nameserver.
    """
    faults = []
    zones: dict[int, Any] = {}
    for index, zone in _zones(raw):
        found = _nameservers(zone)
        misplaced = {key: found[key] for key in found if key in ZoneSettings.model_fields}
        if misplaced:
            rest = {key: value for key, value in found.items() if key not in misplaced}
            zones[index] = misplaced | dict(zone) | {"nameservers": rest}
        faults += [
            f"zones[{index}].nameservers: {key} is a setting of the zone, and belongs above [zones.nameservers]: in "
            "TOML, all lines below that heading are nameservers"
            for key in misplaced
        ]
    if not zones:
        return raw, []
    return raw | {"zones": [zones.get(index, zone) for index, zone in enumerate(raw["zones"])]}, faults


def _zones(raw: Mapping[str, Any]) -> Iterable[tuple[int, Any]]:
    zones = raw.get("zones")
    return enumerate(zones if isinstance(zones, list | tuple) else ())


def _nameservers(zone: object) -> Mapping[str, Any]:
    """The table of nameservers of a raw zone; empty if there is no such table."""
    nameservers = zone.get("nameservers") if isinstance(zone, Mapping) else None
    return nameservers if isinstance(nameservers, Mapping) else {}


def _overlapping_zones(raw: Mapping[str, Any]) -> list[str]:
    """Zones that are equal or inside one another, also if their other settings are invalid."""
    names = []
    for index, zone in _zones(raw):
        try:
            names.append((index, Name.parse(zone["name"])))
        except (Invalid, TypeError, KeyError, AttributeError):
            continue  # reported where the field is validated
    return [
        f"zones[{second}].name: {inner} overlaps {outer} of zones[{first}]: remove one of them"
        for (first, outer), (second, inner) in combinations(names, 2)
        if inner.is_within(outer) or outer.is_within(inner)
    ]


def _repeated_nameservers(raw: Mapping[str, Any]) -> list[str]:
    """Nameservers that are in a table twice, spelled differently: the addresses of one of them would be lost."""
    faults = []
    for index, zone in _zones(raw):
        first: dict[Name, str] = {}
        for text in _nameservers(zone):
            try:
                earlier = first.setdefault(Name.parse(text), text)
            except Invalid:
                continue  # reported where the field is validated
            if earlier != text:
                faults.append(
                    f'zones[{index}].nameservers: "{earlier}" and "{text}" are the same name: '
                    "write it once, with all its addresses"
                )
    return faults


def _repeated_endpoints(raw: Mapping[str, Any]) -> list[str]:
    """Addresses that occur twice in the settings or defaults; port 0 is another port each time."""
    faults = []
    first: dict[Endpoint, str] = {}
    for section in ("dns", "api", "admin"):
        values = raw.get(section, {})
        default = Settings.model_fields[section].default.listen
        listen = values.get("listen", default) if isinstance(values, Mapping) else ()
        for index, text in enumerate(listen if isinstance(listen, list | tuple) else ()):
            try:
                endpoint = Endpoint.parse(str(text))
            except Invalid:
                continue  # reported where the field is validated
            where = f"{section}.listen[{index}]"
            if endpoint.port and first.setdefault(endpoint, where) != where:
                faults.append(f'{where}: "{endpoint}" is {first[endpoint]} already: change or remove one')
    return faults
