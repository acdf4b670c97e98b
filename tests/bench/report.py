"""
What was measured, as Markdown tables. A ratio is ours to theirs of the same round; the spread is that of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tests.bench import counting, credentials, isolation, outage, processes
from tests.bench.api import CONCURRENCY
from tests.bench.api import Results as APIResults
from tests.bench.dns import OURS, RATE, Measured, Round
from tests.bench.dns import Results as DNSResults
from tests.bench.machine import Spread
from tests.bench.scale import FEW, MANY, Scale
from tests.bench.update import Measured as UpdateMeasured
from tests.bench.update import Results as UpdateResults

_R = TypeVar("_R")

_DISTURBED = 0.05
"""Of the measured core's time, how much others may have before a round counts as disturbed."""


def dns_table(results: DNSResults, versions: Mapping[str, str]) -> str:
    """One row for each workload and server."""
    head = (
        "queries",
        "server",
        "queries/s",
        "ours : it",
        "CPU µs/query",
        "ours : it",
        "its core",
        f"p50 µs at {RATE:,}/s",
        "p99 µs",
        "lost",
        "disturbed",
    )
    rows = [
        _dns_row(workload, name, measured, by_server[OURS])
        for workload, by_server in results.items()
        for name, measured in by_server.items()
    ]
    notes = f"Medians (and ranges) of {_count(results)} rounds. {'; '.join(versions.values())}."
    return f"{_table(head, rows)}\n\n{notes}\n"


def api_table(results: APIResults) -> str:
    """One row for each figure."""
    rounds = results.rounds
    presents = [r.presents for r in rounds]
    rows = [
        (f"presents/s, {CONCURRENCY} at a time", _number(Spread.of(one.rate for one in presents))),
        (f"p50 ms, {CONCURRENCY} at a time", _number(Spread.of(one.p50 * 1e3 for one in presents))),
        (f"p99 ms, {CONCURRENCY} at a time", _number(Spread.of(one.p99 * 1e3 for one in presents))),
        ("CPU µs of the control process per present", _number(Spread.of(one.cpu * 1e6 for one in presents))),
        (f"cleanups/s, {CONCURRENCY} at a time", _number(Spread.of(r.cleanups for r in rounds))),
        ("p50 ms, one at a time", f"{results.alone.p50 * 1e3:.2f}"),
        ("p99 ms, one at a time", f"{results.alone.p99 * 1e3:.2f}"),
        ("p50 ms of the disk's own fdatasync", f"{results.sync * 1e3:.2f}"),
        ("acknowledged but not served", str(sum(one.missing for one in presents) + results.alone.stale)),
        ("disturbed rounds", _disturbed([one.foreign for one in presents])),
    ]
    return f"{_table(('API', ''), rows)}\n\nMedians (and ranges) of {len(rounds)} rounds.\n"


def update_table(results: UpdateResults) -> str:
    """One row for each server. What a second of CPU time is good for says more where the load is slower than it."""
    head = (
        "server",
        f"updates/s, {CONCURRENCY} at a time",
        "ours : it",
        "updates per CPU s",
        "ours : it",
        "p50 ms",
        "p99 ms",
        "not served",
        "TXT queries/s",
        "ours : it",
        "queries per CPU s",
        "ours : it",
        "disturbed",
    )
    rows = [_update_row(name, measured, results[OURS]) for name, measured in results.items()]
    return f"{_table(head, rows)}\n\nMedians (and ranges) of {len(results[OURS].updates)} rounds.\n"


def _update_row(name: str, measured: UpdateMeasured, ours: UpdateMeasured) -> tuple[str, ...]:
    updates, queries = measured.updates, measured.queries
    return (
        name,
        *_compared(updates, ours.updates, lambda r: r.rate),
        *_compared(updates, ours.updates, lambda r: 1 / r.cpu),
        _number(Spread.of(r.p50 * 1e3 for r in updates)),
        _number(Spread.of(r.p99 * 1e3 for r in updates)),
        str(sum(r.missing for r in updates)),
        *_compared(queries, ours.queries, lambda r: r.qps),
        *_compared(queries, ours.queries, lambda r: 1 / r.cpu),
        _disturbed([*(r.foreign for r in updates), *(r.foreign for r in queries)]),
    )


def credentials_table(rounds: Sequence[credentials.Round]) -> str:
    """What wrong credentials get, and what they do to updates with the right ones."""
    rows = [
        ("wrong credentials/s", _number(Spread.of(r.rate for r in rounds))),
        ("  of those, answered with 429", f"{Spread.of(r.limited for r in rounds).median:.1%}"),
        ("p50 ms of an update, alone", _number(Spread.of(r.alone.p50 * 1e3 for r in rounds))),
        ("  beside wrong credentials", _number(Spread.of(r.beside.p50 * 1e3 for r in rounds))),
        ("  times as long", _number(Spread.of(r.beside.p50 / r.alone.p50 for r in rounds))),
        ("p99 ms of an update, alone", _number(Spread.of(r.alone.p99 * 1e3 for r in rounds))),
        ("  beside wrong credentials", _number(Spread.of(r.beside.p99 * 1e3 for r in rounds))),
        ("  times as long", _number(Spread.of(r.beside.p99 / r.alone.p99 for r in rounds))),
    ]
    return f"{_table(('credentials', ''), rows)}\n\nMedians (and ranges) of {len(rounds)} rounds.\n"


def scale_table(results: Scale) -> str:
    """One row for each figure of a million names."""
    rows = [
        (f"queries/s, {MANY:,} names to {FEW}", _number(results.few.ratio(results.many, lambda r: r.qps))),
        (f"CPU a query, {MANY:,} names to {FEW}", _number(results.few.ratio(results.many, lambda r: r.cpu))),
        ("octets of memory for each name", f"{results.octets:.0f}"),
        ("seconds from start to answering", f"{results.load:.1f}"),
        ("seconds of a reload", f"{results.reload:.1f}"),
        ("queries lost while reloading", str(results.lost)),
        ("p99 ms while reloading", f"{results.p99 * 1e3:.1f}"),
    ]
    return f"{_table(('scale', ''), rows)}\n"


def isolation_table(rounds: Sequence[isolation.Round], priority: str) -> str:
    """What a flood on one side does to the other, the nameserver having that *priority*."""
    nsd = [(r.nsd, r.nsd_in_flood) for r in rounds if r.nsd is not None and r.nsd_in_flood is not None]
    rows = [
        ("p50 ms of a present, alone", _number(Spread.of(r.present * 1e3 for r in rounds))),
        ("  in a DNS flood", _number(Spread.of(r.present_in_flood * 1e3 for r in rounds))),
        ("  times as long", _number(Spread.of(r.present_in_flood / r.present for r in rounds))),
        (f"p99 ms of a query at {isolation.RATE:,}/s, alone", _number(Spread.of(r.query * 1e3 for r in rounds))),
        ("  in an API flood", _number(Spread.of(r.query_in_flood * 1e3 for r in rounds))),
        ("  times as long", _number(Spread.of(r.query_in_flood / r.query for r in rounds))),
        ("p99 ms of a query to NSD, alone", _number(Spread.of(alone * 1e3 for alone, _ in nsd)) if nsd else "?"),
        ("  in the API flood", _number(Spread.of(flooded * 1e3 for _, flooded in nsd)) if nsd else "?"),
        ("  times as long", _number(Spread.of(flooded / alone for alone, flooded in nsd)) if nsd else "?"),
        ("the nameserver's share of a core, in a DNS flood", _number(Spread.of(r.nameserver for r in rounds))),
        ("the control process's, in an API flood", _number(Spread.of(r.control for r in rounds))),
        ("disturbed rounds", _disturbed([r.foreign for r in rounds])),
    ]
    return f"{_table((f'isolation, {priority} priority', ''), rows)}\n\nMedians (and ranges) of {len(rounds)} rounds.\n"


def outage_table(sizes: Sequence[outage.Size]) -> str:
    """How long queries wait when the process that answers them is killed."""
    rows = [
        (f"{size.names:,} names, {name}", _number(Spread.of(one.longest * 1e3 for one in outages)), str(_lost(outages)))
        for size in sizes
        for name, outages in (("ours", size.ours), ("NSD", size.nsd))
        if outages
    ]
    header = ("a nameserver process is killed", "longest wait of a query, ms", "queries without a reply")
    return f"{_table(header, rows)}\n\nMedians (and ranges) of {len(sizes[0].ours)} deaths each.\n"


def _lost(outages: Sequence[outage.Outage]) -> int:
    return sum(one.lost for one in outages)


def processes_table(rounds: Sequence[processes.Round]) -> str:
    """What a second nameserver process is good for."""
    rows = [
        ("queries/s, one process", _number(Spread.of(r.one.qps for r in rounds))),
        ("queries/s, two processes", _number(Spread.of(r.two.qps for r in rounds))),
        ("  times as many, the flood on the same two cores", _number(Spread.of(r.two.qps / r.one.qps for r in rounds))),
        ("CPU µs/query, one process", _number(Spread.of(r.one.cpu * 1e6 for r in rounds))),
        ("CPU µs/query, two processes", _number(Spread.of(r.two.cpu * 1e6 for r in rounds))),
        ("  times as many, for as much CPU time each", _number(Spread.of(2 * r.one.cpu / r.two.cpu for r in rounds))),
        ("of the work, what the less busy one of two does", _number(Spread.of(r.least for r in rounds))),
        ("disturbed rounds", _disturbed([r.foreign for r in rounds])),
    ]
    return f"{_table(('processes', ''), rows)}\n\nMedians (and ranges) of {len(rounds)} rounds.\n"


def counting_table(rounds: Sequence[counting.Round]) -> str:
    """What it costs to count."""
    rows = [
        ("CPU µs/query, in all", _number(Spread.of(r.whole * 1e6 for r in rounds))),
        ("CPU µs/query, counting", _number(Spread.of(r.counting * 1e6 for r in rounds))),
        ("  of the whole, %", _number(Spread.of(r.share * 100 for r in rounds))),
    ]
    return f"{_table(('counting', ''), rows)}\n\nMedians (and ranges) of {len(rounds)} rounds.\n"


def _dns_row(workload: str, name: str, measured: Measured, ours: Measured) -> tuple[str, ...]:
    def ratio(figure: Callable[[Round], float]) -> str:
        return "" if name == OURS else _number(measured.ratio(ours, figure))

    return (
        workload,
        name,
        _number(measured.spread(lambda r: r.qps)),
        ratio(lambda r: r.qps),
        _number(measured.spread(lambda r: r.cpu * 1e6)),
        ratio(lambda r: r.cpu),
        f"{measured.spread(lambda r: r.share).median:.0%}",
        _number(Spread.of(latency.p50 * 1e6 for latency in measured.latencies)),
        _number(Spread.of(latency.p99 * 1e6 for latency in measured.latencies)),
        str(sum(r.lost for r in measured.rounds)),
        _disturbed([r.foreign for r in measured.rounds]),
    )


def _compared(rounds: Sequence[_R], ours: Sequence[_R], figure: Callable[[_R], float]) -> tuple[str, str]:
    """The figure, and how many times as much it is with us in the same round; nothing if it is ours."""
    ratios = [figure(mine) / figure(its) for mine, its in zip(ours, rounds, strict=True)]
    return _number(Spread.of(map(figure, rounds))), "" if rounds is ours else _number(Spread.of(ratios))


def _disturbed(shares: Sequence[float]) -> str:
    return f"{sum(share > _DISTURBED for share in shares)} of {len(shares)}"


def _count(results: DNSResults) -> int:
    return len(next(iter(next(iter(results.values())).values())).rounds)


def _number(spread: Spread) -> str:
    digits = 0 if spread.median >= 100 else 1 if spread.median >= 10 else 2
    median, low, high = (f"{figure:,.{digits}f}" for figure in (spread.median, spread.low, spread.high))
    return f"{median} ({low}–{high})"  # noqa: RUF001


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
