"""Where everything has to be there, nothing is skipped."""

from __future__ import annotations

import pytest

from tests.support.requirements import lacking


@pytest.mark.parametrize(("value", "outcome"), [("1", "failed"), ("0", "skipped"), ("", "skipped")])
def test_lacking(monkeypatch: pytest.MonkeyPatch, value: str, outcome: str) -> None:
    """A test that lacks something is skipped, or fails where RESPONDER_REQUIRE_ALL=1; either way it says what."""
    monkeypatch.setenv("RESPONDER_REQUIRE_ALL", value)
    expected = {"failed": pytest.fail.Exception, "skipped": pytest.skip.Exception}[outcome]

    with pytest.raises(expected, match="a thing is not installed"):
        lacking("a thing is not installed")
