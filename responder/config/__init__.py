"""
The settings: they are read once at the start, checked as a whole, and then frozen.

`settings` and `api` define them, `fields` defines how single values are written, and `sources` reads them from the file
and the environment.
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
