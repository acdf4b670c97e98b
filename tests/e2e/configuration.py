"""
The configuration file of the service, as `Responder` takes it: with the places in braces that it fills in itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def render(
    *zones: str,
    listen: Sequence[str] = (),
    dns: str = "",
    rate_limit: str = 'exempt = ["127.0.0.0/8"]',
    limits: str = "",
    log: str = "debug",
    database: str = "sqlite+aiosqlite:///{database}",
    more: str = "",
) -> str:
    """
    A whole file. Nameservers *listen* there, too; *dns*, *rate_limit* and *limits* are more of those tables; *log* is
    the level, so that a secret in any line would show. *database* is its URL, *more* are further tables.
    """
    return f"""{"".join(zones)}
[dns]
listen = ["127.0.0.1:{{dns}}", {", ".join(map(_toml, listen))}]
{dns}

[dns.rate_limit]
{rate_limit}

[api]
listen = ["127.0.0.1:{{api}}"]
tls = "off"

[api.limits]
{limits}

[admin]
listen = ["127.0.0.1:{{admin}}"]

[database]
url = "{database}"

[log]
level = "{log}"

{more}
"""


def zone(
    name: str,
    nameservers: Mapping[str, Sequence[str]],
    *,
    records: str = "",
    hostmaster: str = "hostmaster@example.com",
    negative_ttl: int = 5,
) -> str:
    """One of the zones: its nameservers with their addresses, records as zone text, seconds that absence is cached."""
    lines = "\n".join(f"{_toml(host)} = {_toml(addresses)}" for host, addresses in nameservers.items())
    return f"""
[[zones]]
name = {_toml(name)}
hostmaster = {_toml(hostmaster)}
records = {_toml(records)}
negative_ttl = {negative_ttl}
[zones.nameservers]
{lines}
"""


def _toml(value: str | Sequence[str]) -> str:
    """Strings and lists of them are the same in JSON and TOML; braces as `str.format` takes them."""
    return json.dumps(value).replace("{", "{{").replace("}", "}}")
