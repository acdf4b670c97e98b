"""The API against its description: a program that knows nothing but `/openapi.json` asks what is described there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import configuration
from .configuration import zone
from .service import ZONE, Responder

pytestmark = pytest.mark.e2e

EXAMPLES = os.environ.get("RESPONDER_FUZZ_EXAMPLES", "60")
"""Requests for each route, besides those for the bounds of every value: enough for all that was wrong once."""

SEED = os.environ.get("RESPONDER_FUZZ_SEED", "1")
"""The same in each run, so that a change is not blamed for what was there before."""

DEADLINE = 1800.0
"""Seconds; it takes about twenty."""

OFTEN = "1000000/minute"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Responder]:
    """A service that limits nothing and registers accounts."""
    limits = f'per_token = "{OFTEN}"\nper_address = "{OFTEN}"\nfailures = "{OFTEN}"'
    registration = f'[api.registration]\nenabled = true\nlimit = "{OFTEN}"\nlimit_in_all = "{OFTEN}"'
    responder = Responder(
        tmp_path,
        configuration=configuration.render(
            zone(ZONE, {f"ns1.{ZONE}": ["127.0.0.1"]}), limits=limits, more=registration, log="info"
        ),
    )
    try:
        responder.start()
        yield responder
    finally:
        responder.stop()


def test_the_api_is_as_described(service: Responder, tmp_path: Path) -> None:
    """
    What the description allows is not answered with 400, what it forbids is refused; every status, header and body is
    one that it names; without a token, or by another method, nothing is done; nothing is a fault of ours.
    """
    token = service.mint("some.example.com")
    bounds = ["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED]
    program = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.endpoint}/openapi.json"]
    done = subprocess.run(
        [*program, *bounds, "--checks", "all", "--no-color", "--header", f"Authorization: Bearer {token.secret}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Tested: 6" in done.stdout, "every route was asked"
