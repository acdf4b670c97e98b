"""Which challenge names are served, and why others are not."""

from __future__ import annotations

from responder.names import Name
from responder.tokens.serving import Serving

APEX, OTHER = Name.parse("acme.example.com"), Name.parse("acme.example.org")
NAME, ALIAS = Name.parse("_acme-challenge.some.acme.example.com"), Name.parse("_acme-challenge.alias.acme.example.com")


def test_faults() -> None:
    """A name is served in a zone that is served, unless a CNAME of the configuration is there."""
    serving = Serving(apexes=frozenset({APEX}), aliases=frozenset({ALIAS}))

    assert serving.fault(NAME, APEX) is None
    assert serving.fault(NAME, OTHER) == f"{NAME} is in the zone {OTHER}, which is not served here"
    assert serving.fault(ALIAS, APEX) == f"{ALIAS} is a CNAME in the configuration, which hides values"
