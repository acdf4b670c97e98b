"""The feed: what was published is served by all, whoever is slow, dies, hangs, lies or comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import pytest
import pytest_asyncio
import structlog
from hypothesis import given
from hypothesis import strategies as st

from responder.dns.counts import Count
from responder.dns.rrset import RRset
from responder.dns.wire import MAX_SIGNED, Transport
from responder.dns.zone import Change, Static, Zones
from responder.errors import Unserved
from responder.feed import (
    Begin,
    Deliver,
    End,
    Feeds,
    Frame,
    Keys,
    Packet,
    PacketReply,
    Publisher,
    Relay,
    Sandbox,
    fail,
    follow,
    follower,
    parse_frame,
    render_frame,
)
from responder.feed import peer as peers
from responder.feed import publisher as control_end
from responder.feed.frames import parse_packet, render_packet
from responder.names import Name
from responder.nameserver.server import MAX_DRAFT
from tests.support.processes import PATIENCE, eventually
from tests.support.zones import APEX, OTHER, VALUE, ask, challenge, static, text

ONE, TWO = challenge("one"), challenge("two")


def change(serial: int, names: dict[Name, tuple[str, ...] | None]) -> Change:
    return Change(apex=APEX, previous=serial - 1, serial=serial, names=names)


@dataclass
class Store:
    """What a store would know: the changes of a snapshot. It gives the first of them only when *gate* is open."""

    state: list[Change] = field(default_factory=lambda: [change(7, {}), change(7, {ONE: (VALUE,)})])
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    faults: list[Exception] = field(default_factory=list)
    begun: int = 0
    ended: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def snapshot(self) -> AsyncGenerator[Change, None]:
        self.begun += 1
        try:
            state = list(self.state)
            for item in state:
                await self.gate.wait()
                yield item
                if self.faults:
                    raise self.faults.pop()
        finally:
            self.ended += 1


@dataclass
class Supervisor:
    """What the supervisor does for the feed: it hands it over, kills whom the publisher wants dead, and says so."""

    publishers: list[Publisher] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    deaf: bool = False
    """Whether nobody whom it kills dies."""
    _pids: Iterator[int] = field(default_factory=lambda: itertools.count(100_001))

    async def connect(self, pid: int = 0) -> tuple[int, socket.socket]:
        """The process id of a nameserver, a new one unless it is given, and its feed to the newest publisher."""
        ours, theirs = socket.socketpair()
        pid = pid or next(self._pids)
        await self.publishers[-1].admit(pid, ours)
        return pid, theirs

    def kill(self, pid: int) -> None:
        self.killed.append(pid)
        if not self.deaf:
            asyncio.get_running_loop().call_soon(self.publishers[-1].bury, pid)


@dataclass
class Peer:
    """A nameserver by hand, which acknowledges when it is told to."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    all: ClassVar[list[Peer]] = []

    @classmethod
    async def connect(cls, supervisor: Supervisor, pid: int = 0) -> Peer:
        pid, feed = await supervisor.connect(pid)
        peer = cls(pid, *await asyncio.open_unix_connection(sock=feed))
        cls.all.append(peer)
        return peer

    @classmethod
    async def hello(
        cls, supervisor: Supervisor, pid: int = 0, *, loaded: bool = False, sandbox: Sandbox | None = None
    ) -> Peer:
        peer = await cls.connect(supervisor, pid)
        peer.send({"loaded": loaded, "sandbox": asdict(sandbox or Sandbox())})
        return peer

    def send(self, message: object) -> None:
        body = json.dumps(message).encode()
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def read(self) -> tuple[int, Frame]:
        async with asyncio.timeout(PATIENCE):
            length = int.from_bytes(await self.reader.readexactly(4), "big")
            return parse_frame(json.loads(await self.reader.readexactly(length)))

    async def take(self) -> Frame:
        """The next frame, acknowledged."""
        number, frame = await self.read()
        self.send({"ack": number})
        return frame

    async def load(self) -> list[Frame]:
        """All frames up to the end of the snapshot, acknowledged."""
        frames = [await self.take()]
        while frames[-1] != End():
            frames.append(await self.take())
        return frames

    async def hung_up(self) -> bool:
        """Wait until the other end hangs up, whatever it says before."""
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Follower:
    """A real nameserver's end of the feed."""

    supervisor: Supervisor
    feeds: Feeds = field(default_factory=Feeds)
    pid: int = 0
    installed: list[Zones] = field(default_factory=list)
    keys: list[tuple[bytes, ...]] = field(default_factory=list)
    relay: Relay | None = None
    counts: Callable[[], Sequence[Count]] = tuple
    task: asyncio.Task[None] | None = None

    @property
    def zones(self) -> Zones:
        return self.installed[-1]

    def values(self, name: Name) -> list[str]:
        return [line.split('"')[1] for line in text(ask(self.zones, str(name), "TXT").answer)]

    async def loaded(self, snapshots: int = 1) -> None:
        """Wait until it has installed so many snapshots."""
        await eventually(lambda: len(self.installed) >= snapshots, "a snapshot is served")

    async def connect(self) -> None:
        """Have it follow the newest publisher, to which it answers queries."""
        self.pid, feed = await self.supervisor.connect(self.pid)
        self.feeds.put(feed)
        self.supervisor.publishers[-1].answers(self.pid)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Follower]:
        await self.connect()
        self.task = asyncio.create_task(
            follow(self.feeds, self.installed.append, self.keys.append, self.relay, self.counts)
        )
        try:
            yield self
        finally:
            self.task.cancel()
            await asyncio.wait([self.task])


@pytest.fixture(autouse=True)
def deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nameservers have all the time, unless a test says otherwise."""
    monkeypatch.setattr(peers, "ACK_DEADLINE", PATIENCE)
    for name in ("RECONNECT_DEADLINE", "REPLACEMENT_DEADLINE"):
        monkeypatch.setattr(control_end, name, PATIENCE)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What the log says, kept from the terminal."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


@pytest.fixture
def store() -> Store:
    return Store()


Start = Callable[..., Awaitable[Publisher]]


@pytest_asyncio.fixture
async def start(supervisor: Supervisor, store: Store) -> AsyncIterator[Start]:
    """Starts control processes' ends of the feed: so many *nameservers* are expected, some *outlived* another."""

    async def start(nameservers: int = 0, outlived: Sequence[int] = ()) -> Publisher:
        statics, kill = [static()], supervisor.kill
        publisher = Publisher(statics, store.snapshot, nameservers=nameservers, outlived=outlived, kill=kill)
        supervisor.publishers.append(publisher)
        return publisher

    yield start
    for publisher in supervisor.publishers:
        await publisher.stop()
    for peer in Peer.all:
        peer.close()
    Peer.all.clear()


async def within(awaitable: Awaitable[object]) -> None:
    """Wait for what should not take long."""
    async with asyncio.timeout(PATIENCE):
        await awaitable


async def test_snapshot_then_changes(start: Start, supervisor: Supervisor) -> None:
    """A nameserver is sent the snapshot and then each change, every frame numbered."""
    publisher = await start()
    peer = await Peer.hello(supervisor)
    frames = [await peer.read() for _ in range(4)]
    for number, _ in frames:
        peer.send({"ack": number})

    publishing = asyncio.create_task(publisher.publish([change(8, {TWO: ()}), change(9, {TWO: None})]))
    frames += [await peer.read(), await peer.read()]
    peer.send({"ack": 6})
    await within(publishing)

    expected = [
        Begin((static(),)),
        change(7, {}),
        change(7, {ONE: (VALUE,)}),
        End(),
        change(8, {TWO: ()}),
        change(9, {TWO: None}),
    ]
    assert list(enumerate(expected, 1)) == frames


async def test_cookie_keys(start: Start, supervisor: Supervisor) -> None:
    """Keys reach the nameservers that are there, and those that come later before they answer anything."""
    publisher = await start()
    async with Follower(supervisor).running() as early:
        await early.loaded()
        publisher.rekey((b"new", b"old"))
        await eventually(lambda: early.keys, "the keys are there")
        async with Follower(supervisor).running() as late:
            await late.loaded()

    assert [(b"new", b"old")] == early.keys == late.keys


async def test_counts_of_very_many_zones(supervisor: Supervisor, store: Store) -> None:
    """A nameserver is not taken for a broken one because it has much to tell: all of its counts arrive."""
    apexes = [Name.from_labels([b"%d" % n, *[b"\1" * 60] * 4]) for n in range(300)]
    soa = static().rrsets[0]
    counts: list[Count] = [("replies", (str(apex), "NOERROR"), 1) for apex in apexes]
    arrived: list[Count] = []
    store.state = [change(7, {})]
    publisher = Publisher(
        [Static(apex=apex, rrsets=(replace(soa, owner=apex),), txt_ttl=1) for apex in apexes],
        store.snapshot,
        nameservers=1,
        kill=supervisor.kill,
        counted=arrived.append,
    )
    supervisor.publishers.append(publisher)
    async with Follower(supervisor, counts=lambda: counts).running() as follower:
        await follower.loaded()
        await eventually(lambda: publisher.lag()[0], "it answers")
        await within(publisher.check())
        await publisher.stop()

    assert counts == arrived


async def test_faults_in_what_is_not_essential(
    start: Start, supervisor: Supervisor, logged: list[structlog.typing.EventDict]
) -> None:
    """Neither counts that cannot be taken nor a reply that cannot be delivered end the nameserver: changes go on."""
    publisher = await start()
    publisher.take_packets_with(lambda _, deliver: deliver(b"reply"))
    relay, failed = Relay(), list[str]()

    def fail(*_: object) -> Any:
        failed.append("a fault")
        raise RuntimeError("a fault")

    async with Follower(supervisor, relay=relay, counts=fail).running() as follower:
        await follower.loaded()
        relay.pass_on(PACKET, fail)
        await eventually(lambda: publisher.lag()[0], "it answers")
        await within(publisher.check())
        await within(publisher.publish([change(8, {ONE: (OTHER,)})]))

        assert [OTHER] == follower.values(ONE)

    assert ["a fault"] * 2 == failed
    assert ["a step that DNS can do without failed"] == [
        line["event"] for line in logged if line["log_level"] == "error"
    ]


UPDATE = b"\x12\x34\x28\0" + bytes(8)
PACKET = Packet(UPDATE, Transport.UDP, "192.0.2.7", b"")


async def test_packets_and_their_replies(start: Start, supervisor: Supervisor) -> None:
    """What a nameserver passes on is answered when there is an answer, and changes do not wait for that."""
    publisher = await start()
    passed_on: list[tuple[Packet, Deliver]] = []
    publisher.take_packets_with(lambda packet, deliver: passed_on.append((packet, deliver)))
    relay, replies = Relay(), list[bytes]()
    async with Follower(supervisor, relay=relay).running() as follower:
        await follower.loaded()
        relay.pass_on(PACKET, replies.append)
        await eventually(lambda: passed_on, "it is passed on")
        await within(publisher.publish([change(8, {ONE: (OTHER,)})]))
        assert ([OTHER], []) == (follower.values(ONE), replies)

        ((packet, deliver),) = passed_on
        deliver(b"reply")
        await eventually(lambda: replies, "the reply is there")

    assert PACKET == packet
    assert [b"reply"] == replies
    deliver(b"to a nameserver that is gone")


async def test_replies_that_nobody_reads(start: Start, supervisor: Supervisor) -> None:
    """A nameserver that only ever asks, and acknowledges what it does not read, has no replies kept for it for ever."""
    publisher = await start()
    answered: list[Packet] = []

    def answer(packet: Packet, deliver: Deliver) -> None:
        deliver(bytes(50_000))
        answered.append(packet)

    publisher.take_packets_with(answer)
    peer = await Peer.hello(supervisor)
    await peer.load()
    (ours,) = publisher._peers.values()

    for number in range(100):
        peer.writer.write(render_packet(number, PACKET))
    await eventually(lambda: len(answered) == 100, "all are answered")

    assert ours.writer.transport.get_write_buffer_size() <= peers.MAX_UNREAD + 100_100


async def test_packets_that_nobody_answers(start: Start, supervisor: Supervisor) -> None:
    """Where the control process has no keys, packets get SERVFAIL."""
    publisher = await start()
    publisher.take_packets_with(fail)
    relay, replies = Relay(), list[bytes]()
    async with Follower(supervisor, relay=relay).running() as follower:
        await follower.loaded()
        relay.pass_on(PACKET, replies.append)
        await eventually(lambda: replies, "there is a reply")

    assert [UPDATE[:2] + b"\xa8\2" + bytes(8)] == replies


async def test_packets_under_way_when_the_control_process_dies(start: Start, supervisor: Supervisor) -> None:
    """They are sent to the next one, and so is what came meanwhile."""
    first = await start()
    taken: list[Packet] = []
    first.take_packets_with(lambda packet, deliver: taken.append(packet))
    relay, replies = Relay(), list[bytes]()
    async with Follower(supervisor, relay=relay).running() as follower:
        await follower.loaded()
        relay.pass_on(PACKET, replies.append)
        await eventually(lambda: taken, "the first one has it")
        await first.stop()
        relay.pass_on(replace(PACKET, client="2001:db8::9"), replies.append)
        second = await start()
        await follower.connect()
        await eventually(lambda: second._held, "the second one has them, too, and cannot answer yet")
        second.take_packets_with(lambda packet, deliver: deliver(packet.client.encode()))
        await eventually(lambda: len(replies) == 2, "both are answered")

    assert [PACKET.client.encode(), b"2001:db8::9"] == replies


async def test_packets_are_held_within_bounds(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is known how to answer them, some are kept; a nameserver may have been taken over and send more."""
    monkeypatch.setattr(control_end, "MAX_HELD", 2)
    publisher = await start()
    peer = await Peer.hello(supervisor)
    for number in range(5):
        peer.writer.write(render_packet(number, PACKET))
    await peer.load()
    answered: list[Packet] = []
    publisher.take_packets_with(lambda packet, _: answered.append(packet))

    assert [PACKET] * 2 == answered


async def test_nameservers_before_the_store(start: Start, supervisor: Supervisor, store: Store) -> None:
    """Nameservers may be there before the store is: they are attended to, and loaded as soon as it is there."""
    publisher = Publisher([static()], nameservers=1, kill=supervisor.kill)
    supervisor.publishers.append(publisher)
    async with Follower(supervisor).running() as follower:
        await eventually(lambda: publisher._gathered.is_set(), "it is there")
        publisher.rekey((b"k" * 16,))
        await eventually(lambda: follower.keys, "it has the keys of cookies")
        assert [] == follower.installed

        publisher.read_from(store.snapshot)

        await follower.loaded()


async def test_publish_waits_for_the_end_of_elders(start: Start, supervisor: Supervisor) -> None:
    """A change is not live before nameservers of an earlier version are gone; they are not killed for being slow."""
    supervisor.publishers.append(
        Publisher([static()], Store().snapshot, nameservers=0, elders=[7, 8], kill=supervisor.kill)
    )
    publisher = supervisor.publishers[-1]
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: (OTHER,)})]))

    publisher.bury(7)
    await asyncio.sleep(0)
    assert not publishing.done()
    publisher.bury(8)

    await within(publishing)
    assert [] == supervisor.killed


async def test_publish_waits_for_everybody(start: Start, supervisor: Supervisor) -> None:
    """`publish` returns when the slowest nameserver has acknowledged the last change, and no sooner."""
    publisher = await start()
    async with Follower(supervisor).running() as follower:
        await follower.loaded()
        slow = await Peer.hello(supervisor)
        await slow.load()
        await eventually(lambda: all(peer.acknowledged == 4 for peer in publisher._peers.values()), "both serve")
        publishing = asyncio.create_task(publisher.publish([change(8, {ONE: (OTHER,)}), change(9, {TWO: ()})]))
        await slow.take()
        await slow.read()
        await eventually(lambda: follower.zones.nodes.get(TWO.wire), "the quick one applied both")

        assert not publishing.done()
        assert [OTHER] == follower.values(ONE)
        slow.send({"ack": 6})
        await within(publishing)


async def test_one_that_serves_nothing_yet_is_not_waited_for(
    start: Start, store: Store, supervisor: Supervisor
) -> None:
    """A nameserver that has no zones answers nobody, so nobody waits for it; it gets the change all the same."""
    publisher = await start()
    store.gate.clear()
    peer = await Peer.hello(supervisor)
    await peer.read()

    await within(publisher.publish([change(8, {ONE: (OTHER,)})]))

    store.gate.set()
    assert change(8, {ONE: (OTHER,)}) in [(await peer.read())[1] for _ in range(4)]


@pytest.mark.parametrize("loaded", [False, True])
async def test_changes_during_the_snapshot(start: Start, store: Store, supervisor: Supervisor, *, loaded: bool) -> None:
    """What is committed while the snapshot goes out comes behind it but before its end: no old answer is served."""
    publisher = await start()
    store.gate.clear()
    peer = await Peer.hello(supervisor, loaded=loaded)
    assert Begin((static(),)) == await peer.take()
    changes = [change(7, {ONE: ()}), change(8, {ONE: (OTHER,), TWO: ()}), change(9, {TWO: (VALUE,)})]

    publishing = [asyncio.create_task(publisher.publish([item])) for item in changes]
    await eventually(
        lambda: all(p._pending and p._pending[APEX].serial == 9 for p in publisher._peers.values()), "all wait"
    )
    assert [not loaded] * 3 == [task.done() for task in publishing]
    store.gate.set()
    frames = await peer.load()
    await within(asyncio.gather(*publishing))

    late = replace(changes[2], previous=6, names={ONE: (OTHER,), TWO: (VALUE,)})
    assert [*store.state, late, End()] == frames


async def test_changes_that_are_in_the_snapshot(start: Start, store: Store, supervisor: Supervisor) -> None:
    """A change that the snapshot has already does not take a zone back, neither during it nor long after."""
    publisher = await start()
    store.gate.clear()
    async with Follower(supervisor).running() as follower:
        await eventually(lambda: store.begun, "it is loading")
        await within(publisher.publish([change(6, {ONE: ()}), change(7, {ONE: ()})]))
        store.gate.set()
        await follower.loaded()
        await within(publisher.publish([change(7, {ONE: None})]))

        assert [VALUE] == follower.values(ONE)
        assert 7 == next(iter(follower.zones)).serial


async def test_large_changes_go_in_pieces(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of very many names does not keep a nameserver from its queries, and arrives whole."""
    monkeypatch.setattr(peers, "MAX_NAMES", 10)
    names: dict[Name, tuple[str, ...] | None] = {challenge(str(number)): (VALUE,) for number in range(25)}
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()

    publishing = asyncio.create_task(publisher.publish([change(8, names)]))
    pieces = [await peer.take() for _ in range(3)]
    await within(publishing)

    carried = [dict(piece.names) for piece in pieces if isinstance(piece, Change)]
    assert [10, 10, 5] == [len(piece) for piece in carried]
    assert names == carried[0] | carried[1] | carried[2]


async def test_queries_come_between_the_names_of_a_change(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever else has work in a nameserver process has it done while many names change."""
    monkeypatch.setattr(follower, "APPLIED_AT_ONCE", 10)
    names: dict[Name, tuple[str, ...] | None] = {challenge(str(number)): () for number in range(25)}
    publisher = await start()
    async with Follower(supervisor).running() as nameserver:
        await nameserver.loaded()
        publishing = asyncio.create_task(publisher.publish([change(8, names)]))
        seen = await sizes(nameserver.zones, until=publishing.done)

    names_and_those_above = [0, 20, 40, 50]
    assert names_and_those_above == [size - seen[0] for size in seen]


async def sizes(zones: Zones, *, until: Callable[[], object]) -> list[int]:
    """How many names there are in *zones*, whenever it is another number, as a query would find them."""
    seen = [len(zones.nodes)]
    async with asyncio.timeout(PATIENCE):
        while not until():
            await asyncio.sleep(0)
            if len(zones.nodes) != seen[-1]:
                seen.append(len(zones.nodes))
    return seen


async def test_one_that_hangs_is_killed(start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nameserver that stops to acknowledge is killed, and the change is live without it, but not before its death."""
    publisher = await start()
    code = (
        "import asyncio, socket; from responder.feed import Feeds, follow\n"
        "async def main():\n"
        "    feeds = Feeds(); feeds.put(socket.socket(fileno=0)); await follow(feeds, lambda _: None, lambda _: None)\n"
        "asyncio.run(main())"
    )
    pid, feed = await supervisor.connect()
    with feed, subprocess.Popen([sys.executable, "-c", code], stdin=feed.fileno()) as child:  # noqa: ASYNC220
        feed.close()
        await eventually(lambda: publisher._peers[pid].acknowledged == 4, "it has loaded")
        child.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(peers, "ACK_DEADLINE", 0.05)
        supervisor.deaf = True

        publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))

        await eventually(lambda: supervisor.killed.count(pid) == 2, "its death is asked for, again and again")
        assert not publishing.done()
        child.kill()
        await asyncio.to_thread(child.wait, PATIENCE)
        publisher.bury(pid)
        await within(publishing)
    assert {} == publisher._peers
    await within(publisher.publish([change(9, {ONE: ()})]))


async def test_one_that_hangs_while_loading_is_killed(
    start: Start, store: Store, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nameserver that takes nothing of its snapshot is killed, so that the store may end its transaction."""
    monkeypatch.setattr(peers, "ACK_DEADLINE", 0.05)
    store.state = [change(7, {challenge(str(number)): (VALUE,) * 16 for number in range(500)})] * 100
    await start()

    peer = await Peer.hello(supervisor)

    await eventually(lambda: supervisor.killed, "it is killed")
    assert {peer.pid} == {*supervisor.killed}
    await eventually(lambda: store.ended == 1, "the store may end its transaction")
    assert await peer.hung_up()


async def test_one_that_acknowledges_drop_by_drop_is_killed(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for all that was sent: to acknowledge a little of it now and then does not buy more time."""
    monkeypatch.setattr(peers, "MAX_NAMES", 1)
    names: dict[Name, tuple[str, ...] | None] = {challenge(str(number)): () for number in range(1000)}
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()
    monkeypatch.setattr(peers, "ACK_DEADLINE", 0.5)
    monkeypatch.setattr(peers, "SECONDS_PER_NAME", 0.0)

    publishing = asyncio.create_task(publisher.publish([change(8, names)]))
    acknowledged = await drip(peer, 0.1)

    assert acknowledged < len(names)
    assert peer.pid in supervisor.killed
    await within(publishing)


async def test_many_names_take_their_time(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of many names, an import for example, may take longer than one of a few."""
    names: dict[Name, tuple[str, ...] | None] = {challenge(str(number)): () for number in range(10)}
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()
    monkeypatch.setattr(peers, "ACK_DEADLINE", 0.01)
    monkeypatch.setattr(peers, "SECONDS_PER_NAME", PATIENCE)

    publishing = asyncio.create_task(publisher.publish([change(8, names)]))
    await asyncio.sleep(0.1)
    await peer.take()

    await within(publishing)
    assert [] == supervisor.killed


async def test_one_that_reads_its_snapshot_drop_by_drop_is_killed(
    start: Start,
    store: Store,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a snapshot of so many names may take is limited as a whole: the store keeps a transaction open for it."""
    monkeypatch.setattr(peers, "ACK_DEADLINE", 0.5)
    monkeypatch.setattr(peers, "SECONDS_PER_NAME", 0.0)
    store.state = [change(7, {challenge(str(number)): (VALUE,) * 16 for number in range(500)})] * 1000
    await start()

    peer = await Peer.hello(supervisor)
    read = await drip(peer, 0.1)

    assert read < len(store.state)
    assert peer.pid in supervisor.killed
    await eventually(lambda: store.ended == 1, "the store may end its transaction")


async def drip(peer: Peer, pause: float) -> int:
    """Take one frame after the other, each after a *pause* in seconds, and say how many could be had in the end."""
    taken = 0
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await peer.take()
            taken += 1
            await asyncio.sleep(pause)
    return taken


async def test_one_that_dies_blocks_nobody(start: Start, supervisor: Supervisor) -> None:
    """A nameserver whose connection ends is as good as dead: it is made sure of, and not waited for."""
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    await peer.read()

    peer.close()

    await within(publishing)
    assert [peer.pid] == supervisor.killed


async def test_one_that_dies_while_loading(
    start: Start, store: Store, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Death in the middle of a snapshot blocks nobody, ends the store's transaction, and is no fault worth a trace."""
    publisher = await start()
    store.gate.clear()
    peer = await Peer.hello(supervisor, loaded=True)
    await peer.take()
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))

    peer.close()

    await within(publishing)
    await eventually(lambda: store.ended == 1, "the store may end its transaction")
    assert [] == caplog.records


async def test_the_dead_are_not_killed_again(start: Start, supervisor: Supervisor) -> None:
    """A nameserver that is known to be dead is not asked to die: its id may be somebody else's by now."""
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()

    publisher.bury(peer.pid)

    assert {} == publisher._peers
    assert await peer.hung_up()
    await publisher.stop()
    assert [] == supervisor.killed


async def test_a_new_control_process(start: Start, store: Store, supervisor: Supervisor) -> None:
    """While the control process is away the zones stay; a new one waits with its changes until all are back."""
    first = await start()
    async with Follower(supervisor).running() as follower:
        await follower.loaded()
        await first.stop()
        assert [VALUE] == follower.values(ONE)

        store.state = [change(8, {ONE: (VALUE,), TWO: ()})]
        second = await start(nameservers=1, outlived=[follower.pid])
        publishing = asyncio.create_task(second.publish([change(9, {ONE: (OTHER,)})]))
        await asyncio.sleep(0)
        assert not publishing.done()
        await follower.connect()
        await within(publishing)

        assert 2 == len(follower.installed)
        assert [OTHER] == follower.values(ONE)
        assert TWO.wire in follower.zones.nodes


async def test_one_that_outlived_the_control_process_is_waited_for(
    start: Start, store: Store, supervisor: Supervisor
) -> None:
    """A nameserver that comes back may answer from old data until it has loaded, so changes wait until then."""
    publisher = await start(outlived=[7])
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    peer = await Peer.hello(supervisor, 7, loaded=True)
    for _ in range(3):
        await peer.take()
    assert not publishing.done()

    assert [change(8, {ONE: ()}), End()] == await peer.load()
    await within(publishing)


async def test_one_that_does_not_come_back(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nameserver of before that says nothing hangs: changes wait until it is dead, and no longer."""
    monkeypatch.setattr(control_end, "RECONNECT_DEADLINE", 0.01)
    supervisor.deaf = True
    publisher = await start(outlived=[7, 8])
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    publisher.bury(8)

    await eventually(lambda: supervisor.killed == [7, 7], "its death is asked for, again and again")

    assert not publishing.done()
    publisher.bury(7)
    await within(publishing)


async def test_a_spare(start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A spare has confirmed each change when `publish` returns, as it may answer at any time; but a change that spares
    alone have is not served.
    """
    monkeypatch.setattr(control_end, "REPLACEMENT_DEADLINE", 0.01)
    publisher = await start(nameservers=1)
    spare = await Peer.hello(supervisor)
    await spare.load()
    await eventually(lambda: publisher._peers[spare.pid].is_current, "it has loaded")
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    number, _ = await spare.read()
    assert not publishing.done()
    assert (0, 1) == publisher.lag()
    spare.send({"ack": number})
    with pytest.raises(Unserved, match="no nameserver is answering"):
        await within(publishing)

    publisher.answers(spare.pid)
    publishing = asyncio.create_task(publisher.publish([change(9, {ONE: ()})]))
    await spare.take()

    await within(publishing)
    assert (1, 0) == publisher.lag()


async def test_sandboxes(start: Start, supervisor: Supervisor) -> None:
    """What is reported is in force for all that answer; a spare does not count yet."""
    publisher = await start()
    assert "unknown: no nameserver answers" == publisher.sandbox()
    first = await Peer.hello(supervisor, sandbox=Sandbox(landlock=7, seccomp=True, user="responder-dns"))
    second = await Peer.hello(supervisor, sandbox=Sandbox(landlock=6, seccomp=True))
    spare = await Peer.hello(supervisor)
    for peer in (first, second, spare):
        await peer.load()

    publisher.answers(first.pid)
    assert "ok: Landlock 7, seccomp, user responder-dns" == publisher.sandbox()
    publisher.answers(second.pid)
    assert "ok: Landlock 6, seccomp, no user of its own" == publisher.sandbox()
    publisher.answers(spare.pid)
    assert "incomplete: no Landlock, no seccomp, no user of its own" == publisher.sandbox()


async def test_nobody_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control process does not wait for ever for a nameserver that answers, and calls nothing live then."""
    monkeypatch.setattr(control_end, "REPLACEMENT_DEADLINE", 0.01)
    publisher = await start(nameservers=2)

    with pytest.raises(Unserved, match="no nameserver is answering"):
        await within(publisher.publish([change(8, {ONE: ()})]))
    await within(publisher.publish([]))


async def test_the_last_one_is_replaced(start: Start, supervisor: Supervisor) -> None:
    """With no nameserver left, a change waits until the next one serves it."""
    publisher = await start(nameservers=1)

    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    peer = await Peer.hello(supervisor)
    publisher.answers(peer.pid)
    await eventually(lambda: publisher._peers[peer.pid].loaded, "the snapshot is on its way")

    assert not publishing.done()
    await peer.load()
    await within(publishing)


async def test_nameserver_before_control(start: Start, supervisor: Supervisor) -> None:
    """A nameserver waits for a feed that is not there yet, and of two takes the newer one."""
    feeds = Feeds()
    installed: list[Zones] = []
    old, other_end = socket.socketpair()
    with old, other_end:
        feeds.put(old)
        await start()
        _, feed = await supervisor.connect()
        feeds.put(feed)
        following = asyncio.create_task(follow(feeds, installed.append, lambda _: None))
        await eventually(lambda: installed, "it has loaded")
        assert b"" == other_end.recv(1)
    following.cancel()
    await asyncio.wait([following])


async def test_control_is_away_for_long(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    """That nobody feeds a nameserver is worth a line, once."""
    monkeypatch.setattr(follower, "AWAY_REPORTED", 0.001)
    publisher = await start()
    async with Follower(supervisor).running() as nameserver:
        await nameserver.loaded()
        await publisher.stop()
        await eventually(lambda: logged, "the log says so")

    assert ["control process is away; answering from memory"] == [event["event"] for event in logged]


async def test_reload(start: Start, store: Store, supervisor: Supervisor) -> None:
    """`reload` has everybody take a new snapshot, returns when all serve it, and costs nobody their life."""
    publisher = await start(nameservers=2)
    async with Follower(supervisor).running() as one, Follower(supervisor).running() as two:
        await asyncio.gather(one.loaded(), two.loaded())
        store.state = [change(5, {TWO: (OTHER,)})]

        await within(publisher.reload())

        for follower in (one, two):
            assert 2 == len(follower.installed)
            assert ([], [OTHER]) == (follower.values(ONE), follower.values(TWO))
        await within(publisher.publish([change(6, {TWO: (VALUE,)})]))
        assert ([VALUE], [VALUE]) == (one.values(TWO), two.values(TWO))
        assert [] == supervisor.killed


async def test_reload_in_the_middle_of_a_snapshot(start: Start, store: Store, supervisor: Supervisor) -> None:
    """A snapshot that was begun before a `reload` is given up for a new one, and the transaction with it."""
    publisher = await start()
    peer = await Peer.hello(supervisor, loaded=True)
    store.gate.clear()
    assert Begin((static(),)) == await peer.take()
    store.state = [change(9, {TWO: (OTHER,)})]

    reloading = asyncio.create_task(publisher.reload())
    await eventually(lambda: store.ended == 1, "the first transaction is over")
    store.gate.set()

    assert [Begin((static(),)), change(9, {TWO: (OTHER,)}), End()] == await peer.load()
    await within(reloading)


async def test_old_zones_go_little_by_little(
    start: Start, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever else has work in a nameserver process has it done while the names of before a `reload` are freed."""
    monkeypatch.setattr(follower, "FREED_AT_ONCE", 4)
    publisher = await start()
    async with Follower(supervisor).running() as nameserver:
        await nameserver.loaded()
        old = nameserver.zones
        reloading = asyncio.create_task(publisher.reload())
        seen = await sizes(old, until=lambda: not old.nodes)
        await within(reloading)

        assert [*range(seen[0], 0, -4), 0] == seen
        assert [VALUE] == nameserver.values(ONE)


async def test_a_store_that_fails(
    start: Start, store: Store, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that the store fails to give is begun anew; what the nameserver serves meanwhile, it keeps."""
    monkeypatch.setattr(control_end, "SNAPSHOT_RETRY", 0)
    publisher = await start()
    store.faults = [OSError("first"), ConnectionError("second")]
    store.gate.clear()
    peer = await Peer.hello(supervisor, loaded=True)
    await eventually(lambda: store.begun, "it is loading")
    publishing = asyncio.create_task(publisher.publish([change(8, {TWO: ()})]))

    await eventually(lambda: any(p._pending for p in publisher._peers.values()), "the change waits")
    store.gate.set()
    frames = await peer.load()
    await within(publishing)

    begun = [Begin((static(),)), change(7, {})]
    assert [*begun, *begun, Begin((static(),)), *store.state, change(8, {TWO: ()}), End()] == frames
    assert 3 == store.ended
    assert [] == supervisor.killed


GARBAGE = [
    b"\0\0\0\x02{}",
    b"\0\0\0\x02[]",
    b"\0\0\0\x04null",
    b"\0\0\0\x03{x}",
    b"\0\0\0\x02\xff\xfe",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    control_end.MAX_MESSAGE.to_bytes(4, "big") + b"[" * control_end.MAX_MESSAGE,
    (control_end.MAX_MESSAGE + 1).to_bytes(4, "big") + b" " * (control_end.MAX_MESSAGE + 1),
    b"GET / HTTP/1.0\r\n\r\n",
    b'\0\0\0\x0c{"ack":null}',
    b'\0\0\0\x10{"ack":Infinity}',
    b'\0\0\0\x0b{"ack":"x"}',
    b'\0\0\0\x0c{"packet":1}',
]


@pytest.mark.parametrize("garbage", [*GARBAGE, b'\0\0\0\x09{"loaded', b"\0\0", b""])
async def test_garbage_instead_of_a_greeting(
    start: Start, supervisor: Supervisor, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A nameserver that does not greet as one is killed, and nobody else notices."""
    publisher = await start()
    peer = await Peer.connect(supervisor)
    peer.writer.write(garbage)
    peer.writer.write_eof()

    assert await peer.hung_up()

    await eventually(lambda: not publisher._peers, "it is forgotten")
    assert [peer.pid] == supervisor.killed
    assert [] == caplog.records


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_instead_of_an_acknowledgement(
    start: Start,
    supervisor: Supervisor,
    garbage: bytes,
    caplog: pytest.LogCaptureFixture,
    logged: list[structlog.typing.EventDict],
) -> None:
    """A nameserver that has lost its mind is killed, which the log says; changes go on without it."""
    publisher = await start()
    peer = await Peer.hello(supervisor)
    await peer.load()
    publishing = asyncio.create_task(publisher.publish([change(8, {ONE: ()})]))
    await peer.read()

    peer.writer.write(garbage)

    await within(publishing)
    assert [peer.pid] == supervisor.killed
    assert ["nameserver sends invalid messages; killing it"] == [event["event"] for event in logged]
    assert [] == caplog.records


async def test_nameserver_does_not_live_with_nonsense() -> None:
    """A frame that is none ends the nameserver's task, and with it the process: a fresh one may understand more."""
    feeds = Feeds()
    control, nameserver = socket.socketpair()
    feeds.put(nameserver)
    following = asyncio.create_task(follow(feeds, lambda _: None, lambda _: None))
    with control:
        control.sendall(b'\0\0\0\x14{"n":1,"Unheard":{}}')

        with pytest.raises(ValueError, match="not a feed frame"):
            await within(following)


LABELS = st.lists(st.binary(min_size=1, max_size=8), max_size=4)
NAMES = LABELS.map(Name.from_labels)
NUMBERS = st.integers(0, 2**31 - 1)
RRSETS = st.builds(RRset, NAMES, NUMBERS, NUMBERS, st.lists(st.binary(max_size=20), max_size=3).map(tuple))
STATICS = st.builds(Static, apex=NAMES, rrsets=st.lists(RRSETS, max_size=3).map(tuple), txt_ttl=NUMBERS)
STATES = st.one_of(st.none(), st.lists(st.text(max_size=20), max_size=3).map(tuple))
CHANGES = st.builds(
    Change, apex=NAMES, previous=NUMBERS, serial=NUMBERS, names=st.dictionaries(NAMES, STATES, max_size=5)
)


@given(
    NUMBERS,
    st.one_of(
        st.builds(Begin, st.lists(STATICS, max_size=3).map(tuple)),
        CHANGES,
        st.just(End()),
        st.builds(Keys, st.lists(st.binary()).map(tuple)),
        st.builds(PacketReply, NUMBERS, st.binary()),
    ),
)
def test_frames_survive_the_journey(number: int, frame: Frame) -> None:
    """Whatever is in a frame, the other end reads the same."""
    data = render_frame(number, frame)

    assert len(data) == 4 + int.from_bytes(data[:4], "big")
    assert (number, frame) == parse_frame(json.loads(data[4:]))


@given(NUMBERS, st.builds(Packet, st.binary(), st.sampled_from(Transport), st.ip_addresses().map(str), st.binary()))
def test_packets_survive_the_journey(number: int, packet: Packet) -> None:
    """So do packets on their way to the control process; the longest is not too long for it."""
    data = render_packet(number, packet)
    longest = replace(packet, octets=bytes(MAX_SIGNED), draft=bytes(MAX_DRAFT))

    assert len(data) == 4 + int.from_bytes(data[:4], "big")
    assert (number, packet) == parse_packet(json.loads(data[4:]))
    assert len(render_packet(number, longest)) <= control_end.MAX_MESSAGE


def test_packets_from_a_zone() -> None:
    """Where a packet came from is an address: the zone behind it (RFC 4007, section 11) could be any text."""
    data = render_packet(1, replace(PACKET, client="fe80::1%\x1b[31m\ud800"))

    _, packet = parse_packet(json.loads(data[4:]))

    assert "fe80::1" == packet.client


@pytest.mark.parametrize("number", [-1, 1 << 63, 10**100])
def test_refuses_numbers_that_no_packet_has(number: int) -> None:
    """They would be repeated in each reply."""
    data = render_packet(number, PACKET)

    with pytest.raises(ValueError, match="not the number of a packet"):
        parse_packet(json.loads(data[4:]))


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"n": 1},
        {"n": "1", "End": None},
        {"n": 1, "End": 1},
        {"n": 1, "Begin": {}},
        {"n": 1, "Begin": {"zones": None}},
        {"n": 1, "Change": {"apex": "example.com"}},
    ],
)
def test_refuses_what_is_no_frame(message: dict[str, Any]) -> None:
    """A message that is not one of the three frames is refused."""
    with pytest.raises(ValueError, match="not a feed frame"):
        parse_frame(message)


@given(st.lists(CHANGES.map(lambda item: replace(item, apex=APEX)), min_size=2, max_size=4))
def test_joined_changes_have_the_effect_of_all(changes: list[Change]) -> None:
    """Changes of a zone that wait together become one, in which the later state of a name counts."""
    joined = changes[0]
    for item in changes[1:]:
        joined = peers._join(joined, item)

    state: dict[Name, tuple[str, ...] | None] = {}
    for item in changes:
        state |= item.names
    assert replace(changes[-1], previous=changes[0].previous, names=state) == joined
