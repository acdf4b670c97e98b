"""
The settings: read once at the start, checked as a whole, then frozen.

`settings` and `api` say what can be set, `fields` how single values are written, `sources` reads them from file and
environment.
"""

from responder.config.api import AcmeSettings, ApiSettings, RegistrationSettings, parse_contact, parse_directory
from responder.config.fields import Endpoint, parse_base_url, parse_duration
from responder.config.kept import Kept
from responder.config.settings import DatabaseSettings, DnsSettings, Settings, ZoneSettings
from responder.config.sources import Sources, load

__all__ = [
    "AcmeSettings",
    "ApiSettings",
    "DatabaseSettings",
    "DnsSettings",
    "Endpoint",
    "Kept",
    "RegistrationSettings",
    "Settings",
    "Sources",
    "ZoneSettings",
    "load",
    "parse_base_url",
    "parse_contact",
    "parse_directory",
    "parse_duration",
]
