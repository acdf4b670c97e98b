"""
The settings: read once at the start, checked as a whole, then frozen.

`settings` says what can be set, `sources` reads it from file and environment.
"""

from responder.config.settings import (
    ApiSettings,
    DatabaseSettings,
    Endpoint,
    RegistrationSettings,
    Settings,
    ZoneSettings,
    parse_base_url,
    parse_duration,
)
from responder.config.sources import load

__all__ = [
    "ApiSettings",
    "DatabaseSettings",
    "Endpoint",
    "RegistrationSettings",
    "Settings",
    "ZoneSettings",
    "load",
    "parse_base_url",
    "parse_duration",
]
