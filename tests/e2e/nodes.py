"""Services that are nodes of one database, each with an address of its own in the zone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.support.ports import free_port

from . import configuration
from .dns_client import answers, exists
from .programs import wait_until
from .service import ZONE, Responder, Token

ADDRESSES = {"a": "127.0.81.1", "b": "127.0.81.2", "c": "127.0.81.3"}
"""Where the nameserver of each node is in the zone."""

START = 180.0
"""Seconds for the start of a node beside others, on a machine that is busy."""


def responder(
    directory: Path,
    url: str,
    name: str,
    *,
    port: int,
    lease: int,
    names: Iterable[str] = ADDRESSES,
    require: str = "live",
    database: str = "",
    log: str = "debug",
    dns: str = "",
) -> Responder:
    """
    The node *name* of the database at *url*, not started, which serves the zone with the nodes *names*.

    *database* are more lines of that table of the configuration.
    """
    directory.mkdir()
    more = f'[node]\nname = "{name}"\nlease = {lease}\n[propagation]\nrequire = "{require}"'
    zone = configuration.zone(ZONE, {f"{each}.{ZONE}": [ADDRESSES[each]] for each in names})
    text = configuration.render(zone, listen=[f"{ADDRESSES[name]}:{port}"], database=url, more=more, log=log, dns=dns)
    return Responder(directory, configuration=text.replace(f'url = "{url}"', f'url = "{url}"\n{database}'))


@contextmanager
def running_nodes(
    directory: Path, url: str, names: Sequence[str] = "abc", *, lease: int = 5, database: str = ""
) -> Iterator[dict[str, Responder]]:
    """Nodes by name, started together, without what costs time: they log only what is amiss, and have no spares."""
    port = free_port()
    with ExitStack() as stack:
        nodes = {
            name: responder(
                directory / name,
                url,
                name,
                port=port,
                lease=lease,
                names=names,
                database=database,
                log="warning",
                dns="spare = false",
            )
            for name in names
        }
        first, *others = nodes.values()
        for node in nodes.values():
            stack.callback(node.stop)
        first.begin_serving()
        wait_until(first.ready, "the first node is ready", seconds=START)  # it has made the tables
        for node in others:
            node.begin_serving()
        for node in others:
            wait_until(node.ready, "the other nodes are ready", seconds=START)
        yield nodes


def live(node: Responder) -> list[str]:
    """The nodes with a live lease, as *node* sees them."""
    return [each["name"] for each in json.loads(node.cli("node", "list", "--output", "json").stdout) if each["live"]]


def mint(node: Responder, hostnames: Sequence[str]) -> list[Token]:
    """One token for all *hostnames*, as tokens for one each."""
    minted = json.loads(node.cli("token", "mint", *hostnames, "--output", "json").stdout)
    return [Token(minted["id"], minted["token"], granted["challenge_name"]) for granted in minted["hostnames"]]


def wait_until_granted(nodes: dict[str, Responder], tokens: Sequence[Token]) -> None:
    """Return when every node knows the tokens, and serves their names."""
    for name, node in nodes.items():
        wait_until(partial(_serves, node, tokens), f"{name} serves all names")


def _serves(node: Responder, tokens: Sequence[Token]) -> bool:
    is_known = node.introspect(tokens[0]).status == 200 and answers(node.dns, ZONE, "SOA")
    return is_known and all(exists(node.dns, each.challenge_name) for each in tokens)
