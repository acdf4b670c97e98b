"""
Clients that have one name validated before, or while, they present the next: of a hostname and its wildcard, the CA's
resolver asks for the second value right after the first, at one name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .apache import obtaining
from .dns_client import values
from .pebble import Authority
from .programs import wait_until
from .service import Responder
from .uacme import Uacme
from .updates import HOOK, hook_environment, key_of

pytestmark = pytest.mark.e2e

ISSUANCES = 10
"""In a row: with luck, one alone succeeds against a resolver that has the first value in its cache."""


def test_uacme(service: Responder, authority: Authority, resolver: int, tmp_path: Path) -> None:
    """uacme obtains certificates for a hostname and its wildcard, ten in a row, and leaves no value behind."""
    token = service.mint("uacme.example.com")
    names = "uacme.example.com", "*.uacme.example.com"
    environment = hook_environment(service, key_of(service, token), resolver, tmp_path)
    uacme = Uacme(authority, HOOK, environment, tmp_path / "uacme")
    uacme.register()

    for _ in range(ISSUANCES):
        certificate = uacme.obtain(*names)

        certificate.verify(authority.root())
        assert set(names) == certificate.names()
        assert set() == values(service.dns, token.challenge_name)


def test_mod_md(service: Responder, authority: Authority, resolver: int, tmp_path: Path) -> None:
    """Apache obtains a certificate for a hostname and its wildcard, and leaves no value behind."""
    token = service.mint("apache.example.com")
    names = "apache.example.com", "*.apache.example.com"
    environment = hook_environment(service, key_of(service, token), resolver, tmp_path)

    with obtaining(authority, HOOK, environment, *names) as obtained:
        certificate = obtained()

        certificate.verify(authority.root())
        assert set(names) == certificate.names()
        wait_until(lambda: not values(service.dns, token.challenge_name), "no value is left")
