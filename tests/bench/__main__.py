"""
`python -m tests.bench [PART]...`: measures, prints Markdown tables, writes `bench.json` where it is started. What that
holds of other parts stays there.

Absolute figures say something about the machine; what is worth quoting are the ratios, each of two figures from the
same round, and how far they spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.bench import api, counting, credentials, dns, isolation, outage, processes, report, scale, servers, update
from tests.bench.machine import Cores, pin, processor
from tests.e2e.programs import LOGS

OUTPUT = Path("bench.json")

_TAIL = 3000
"""Characters of a log that are shown at most."""


def main() -> None:
    arguments = _arguments()
    cores = Cores.pick()
    pin([os.getpid()], cores.other)  # and with us everything that we start, unless it is moved
    document: dict[str, Any] = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    document["machine"] = {"processor": processor(), "kernel": platform.release()}
    print(f"on {processor()}, Linux {platform.release()}, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(prefix="responder-bench-") as temporary, _showing_logs():
        for name, part in PARTS.items():
            if name not in arguments.parts:
                continue
            if name not in _WITHOUT_DNSPERF and servers.find("dnsperf") is None:
                _say(f"without {name}: dnsperf is not installed")
                continue
            directory = Path(temporary, name)
            directory.mkdir()
            document[name] = part(directory, cores, arguments)
            OUTPUT.write_text(json.dumps(document, indent=1) + "\n")


def _dns(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    results, versions = dns.measure(directory, cores, rounds=arguments.rounds, seconds=arguments.seconds, say=_say)
    print(report.dns_table(results, versions))
    return {
        "versions": versions,
        "workloads": {
            workload: {server: _measured(measured, by_server[dns.OURS]) for server, measured in by_server.items()}
            for workload, by_server in results.items()
        },
    }


def _measured(measured: dns.Measured, ours: dns.Measured) -> object:
    ratios = {"qps": measured.ratio(ours, lambda r: r.qps), "cpu": measured.ratio(ours, lambda r: r.cpu)}
    return {"ours_to_it": {name: asdict(spread) for name, spread in ratios.items()}, **asdict(measured)}


def _api(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    results = api.measure(directory, cores, rounds=arguments.rounds, say=_say)
    print(report.api_table(results))
    return asdict(results)


def _update(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    results = update.measure(directory, cores, rounds=arguments.rounds, seconds=arguments.seconds, say=_say)
    print(report.update_table(results))
    return {name: asdict(measured) for name, measured in results.items()}


def _credentials(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    rounds = credentials.measure(directory, cores, rounds=arguments.rounds, say=_say)
    print(report.credentials_table(rounds))
    return [asdict(one) for one in rounds]


def _scale(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    results = scale.measure(directory, cores, rounds=arguments.rounds, seconds=arguments.seconds, say=_say)
    print(report.scale_table(results))
    return asdict(results)


def _isolation(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    document = {}
    for name in ("ordinary", "realtime") if os.geteuid() == 0 else ("ordinary",):
        realtime = name == "realtime"
        rounds = isolation.measure(directory / name, cores, rounds=arguments.rounds, say=_say, realtime=realtime)
        print(report.isolation_table(rounds, name))
        document[name] = [asdict(one) for one in rounds]
    return document


def _processes(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    rounds = processes.measure(directory, cores, rounds=arguments.rounds, seconds=arguments.seconds, say=_say)
    print(report.processes_table(rounds))
    return [asdict(one) for one in rounds]


def _counting(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    pin([os.getpid()], cores.measured)
    rounds = counting.measure(rounds=arguments.rounds, say=_say)
    pin([os.getpid()], cores.other)
    print(report.counting_table(rounds))
    return [asdict(one) for one in rounds]


def _outage(directory: Path, cores: Cores, arguments: argparse.Namespace) -> object:
    sizes = outage.measure(directory, cores, rounds=arguments.rounds, say=_say)
    print(report.outage_table(sizes))
    return [asdict(size) for size in sizes]


PARTS = {
    "dns": _dns,
    "counting": _counting,
    "scale": _scale,
    "api": _api,
    "update": _update,
    "credentials": _credentials,
    "isolation": _isolation,
    "processes": _processes,
    "outage": _outage,
}
_WITHOUT_DNSPERF = {"api", "counting", "credentials", "isolation", "outage"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="side-by-side benchmarks")
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server has its turn (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a turn lasts (default 3)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("at least one round, of some time")
    return arguments


@contextmanager
def _showing_logs() -> Iterator[None]:
    """Let a program that does not do its part say why, before its log is gone with everything else."""
    try:
        yield
    except pytest.fail.Exception as failure:
        for log in filter(Path.exists, LOGS):
            _say(f"--- {log.name}\n{log.read_text(errors='replace')[-_TAIL:]}")
        raise SystemExit(str(failure)) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
