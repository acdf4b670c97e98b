"""
The fuzz targets on their corpora and beyond, for a bounded number of inputs. `python -m tests.fuzz` goes on for as
long as one likes.
"""

from __future__ import annotations

import importlib.util
import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from responder.dns.counts import Count
from tests.fuzz import respond, seeds, update
from tests.support.nameservers import Nameserver, frame, receive, resolve, running
from tests.support.places import ROOT
from tests.support.requirements import lacking

RUNS = 10_000
MUTANTS = 5_000
SENT = 3_000
BATCH = 10
"""Inputs sent before asking whether they were all taken: few enough that none is lost in the socket's buffer."""

TARGETS = {
    "respond": (respond.check, seeds.seeds(), seeds.CORPUS),
    "update": (update.check, update.seeds(), update.CORPUS),
}
Check = Callable[[bytes], None]


@pytest.mark.parametrize(("check", "corpus", "directory"), TARGETS.values(), ids=TARGETS)
def test_corpus(check: Check, corpus: dict[str, bytes], directory: Path) -> None:
    """The corpus in the tree is what its module writes, and small; every packet of it is answered well."""
    assert corpus == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert all(len(data) < 512 for data in corpus.values())
    for data in corpus.values():
        check(data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutants(target: str) -> None:
    """So are thousands that are bred from them by chance, the same every time; whether or not there is a fuzzer."""
    check, corpus, _ = TARGETS[target]
    for mutant in mutants(list(corpus.values()), MUTANTS):
        try:
            check(mutant)
        except Exception as fault:
            raise AssertionError(f"tests.fuzz.{target}.check(bytes.fromhex({mutant.hex()!r}))") from fault


def test_the_nameserver_lives(tmp_path: Path) -> None:
    """
    A nameserver process that gets them all over its sockets, each twice in a row, answers to the end. After every few
    it is checked and its counts are taken, as the control process does.
    """
    corpus = list(seeds.seeds().values())
    inputs = [data for data in (*corpus, *mutants(corpus, SENT)) if data]
    with running(tmp_path, respond.NAMES, statics=[respond.STATIC]) as nameserver:
        counts: list[Count] = []
        for at in range(0, len(inputs), BATCH):
            for data in inputs[at : at + BATCH]:
                send(nameserver, data[1:], over_tcp=bool(data[0] & 1))
            resolve(nameserver)  # the socket is first in, first out
            counts += nameserver.control.check()

        assert nameserver.is_alive()
        assert {"info", "warning"} >= {json.loads(line)["level"] for line in nameserver.log.read_text().splitlines()}
    received = sum(number for family, _, number in counts if family == "messages")
    assert received > 2 * len(corpus)


def send(nameserver: Nameserver, packet: bytes, *, over_tcp: bool) -> None:
    """Send *packet* twice; over TCP, where that may be the end of the connection, wait for what comes of it."""
    if over_tcp:
        for _ in range(2):
            with nameserver.connect() as connection:
                connection.sendall(frame(packet))
                receive(connection)
        return
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        for _ in range(2):
            client.sendto(packet, nameserver.address)


@pytest.mark.parametrize("target", TARGETS)
def test_atheris(tmp_path: Path, target: str) -> None:
    """So are those that a fuzzer finds which watches the branches they take."""
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris has no wheel for this Python: only the mutants of the test above were tried")
    found = tmp_path / "found"
    found.mkdir()
    bounds = [f"-runs={RUNS}", "-max_total_time=60", "-max_len=1024", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, *bounds, str(found), str(TARGETS[target][2])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == run.returncode, run.stdout[-2000:] + run.stderr[-4000:]
    assert "DONE" in run.stderr


def mutants(parents: list[bytes], count: int) -> Iterator[bytes]:
    """*count* inputs: octets changed, cut out, doubled, or two parents spliced, once or several times."""
    chance = random.Random(1)
    for _ in range(count):
        mutant = bytearray(chance.choice(parents))
        for _ in range(chance.choice([1, 1, 2, 4, 8])):
            mutate(mutant, parents, chance)
        yield bytes(mutant)


def mutate(mutant: bytearray, parents: list[bytes], chance: random.Random) -> None:
    """Change *mutant* once."""
    start, length = chance.randrange(len(mutant) + 1), chance.choice([1, 1, 2, 4, 16])
    other = chance.choice(parents)
    at = chance.randrange(len(other))
    match chance.randrange(6):
        case 0:
            mutant[start : start + 1] = chance.randbytes(1)
        case 1:
            mutant[start : start + 1] = chance.choice([b"\0", b"\1", b"\x3f", b"\x40", b"\xc0", b"\xff"])
        case 2:
            del mutant[start : start + length]
        case 3:
            mutant[start:start] = mutant[start : start + length]
        case 4:
            mutant[start : start + length] = other[at : at + length]
        case _:
            mutant[start:] = other[at:]
