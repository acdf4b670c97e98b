"""The one writer, on a real database and a real feed: what a caller is told is what the DNS shows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from responder.challenges import Challenges, Pace, queue
from responder.errors import InvalidValue, NotCovered, StoreUnavailable, TooManyValues, Unauthenticated
from responder.names import Name
from responder.store import MAX_VALUES, AuditAction, AuditEvent, AuditResult, Outcome, Present
from responder.tokens.token import Token
from tests.support.service import (
    APEX,
    LIFETIME,
    SERVING,
    Control,
    connect,
    control,
    grant,
    lone_node,
    new_database,
    running,
    until,
    url,
)

__all__ = ["running", "url"]

HERE = "192.0.2.9"
HOST, OTHER = "some.example.com", "other.example.com"


def presenting(running: Control, token: Token, host: str, value: str) -> asyncio.Task[Outcome]:
    """A present under way."""
    return asyncio.create_task(running.challenges.present(token, grant(host), value, client=HERE))


def cleaning(running: Control, token: Token, host: str, value: str) -> asyncio.Task[Outcome]:
    """A cleanup under way."""
    return asyncio.create_task(running.challenges.cleanup(token, grant(host), value, client=HERE))


async def test_served_before_told(running: Control) -> None:
    """When present and cleanup return, the DNS shows what they did, at the serial that they return."""
    _, token = await running.mint(HOST)

    presented = await running.challenges.present(token, grant(HOST), "v", client=HERE)

    assert {"v"} == running.values(HOST)
    assert presented.changed
    assert running.clock.now + LIFETIME == presented.expires_at
    cleaned = await running.challenges.cleanup(token, grant(HOST), "v", client=HERE)
    assert set() == running.values(HOST)
    assert presented.serial < cleaned.serial == next(iter(running.snapshots[-1])).serial


async def test_lifetime_asked_for(running: Control) -> None:
    """A value stays for the lifetime that its caller asks for."""
    _, token = await running.mint(HOST)

    outcome = await running.challenges.present(token, grant(HOST), "v", client=HERE, lifetime=timedelta(seconds=90))

    assert running.clock.now + timedelta(seconds=90) == outcome.expires_at


@pytest.mark.parametrize("value", ["", "\n", "x" * 256])
async def test_values_are_checked_first(running: Control, value: str) -> None:
    """What is no value never gets into the queue."""
    _, token = await running.mint(HOST)

    with pytest.raises(InvalidValue):
        await running.challenges.present(token, grant(HOST), value, client=HERE)
    with pytest.raises(InvalidValue):
        await running.challenges.cleanup(token, grant(HOST), value, client=HERE)
    assert [] == running.store.batches


async def test_group_commit(running: Control) -> None:
    """Whatever waits while one transaction runs shares the next one."""
    hosts = [f"h{n}.example.com" for n in range(300)]
    _, token = await running.mint(*hosts)
    running.store.gate.clear()
    first = presenting(running, token, hosts[0], "v")
    await until(lambda: len(running.store.batches) == 1)
    others = [presenting(running, token, host, "v") for host in hosts[1:]]
    await asyncio.sleep(0)

    running.store.gate.set()
    outcomes = await asyncio.gather(first, *others)

    assert [1, 299] == [len(batch) for batch in running.store.batches]
    assert 2 == len({outcome.serial for outcome in outcomes})
    assert all(running.values(host) == {"v"} for host in hosts)


async def test_batches_are_bounded(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction takes `MAX_BATCH` operations at most."""
    monkeypatch.setattr(queue, "MAX_BATCH", 10)
    _, token = await running.mint(HOST)
    running.store.gate.clear()

    tasks = [presenting(running, token, HOST, f"v{n % 5}") for n in range(25)]
    await until(lambda: len(running.store.batches) == 1)
    running.store.gate.set()
    await asyncio.gather(*tasks)

    assert [10, 10, 5] == [len(batch) for batch in running.store.batches]


async def test_order_within_a_name(running: Control) -> None:
    """Operations that wait together take effect in the order in which they came."""
    _, token = await running.mint(HOST)
    running.store.gate.clear()
    await_first = presenting(running, token, HOST, "first")
    await until(lambda: len(running.store.batches) == 1)

    tasks = [
        presenting(running, token, HOST, "stays"),
        cleaning(running, token, HOST, "stays"),
        presenting(running, token, HOST, "stays"),
        presenting(running, token, HOST, "goes"),
        cleaning(running, token, HOST, "goes"),
        cleaning(running, token, HOST, "first"),
    ]
    await asyncio.sleep(0)
    running.store.gate.set()
    outcomes = await asyncio.gather(await_first, *tasks)

    assert {"stays"} == running.values(HOST)
    assert [True] * 7 == [outcome.changed for outcome in outcomes]


async def test_refusals_stay_alone(running: Control) -> None:
    """One operation that is refused does not hinder those that share its transaction."""
    _, mine = await running.mint(HOST)
    _, revoked = await running.mint(OTHER)
    await running.store.revoke(revoked.id, at=running.clock.now)
    running.store.gate.clear()
    waiting = [presenting(running, mine, HOST, "first")]
    await until(lambda: len(running.store.batches) == 1)

    waiting += [presenting(running, mine, HOST, f"v{n}") for n in range(MAX_VALUES)]
    waiting += [presenting(running, mine, OTHER, "v"), presenting(running, revoked, OTHER, "v")]
    await asyncio.sleep(0)
    running.store.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    kinds = [Outcome] * MAX_VALUES + [TooManyValues, NotCovered, Unauthenticated]
    assert kinds == [type(outcome) for outcome in outcomes]
    assert 2 == len(running.store.batches)
    assert {"first", *(f"v{n}" for n in range(MAX_VALUES - 1))} == running.values(HOST)


async def test_queue_is_bounded(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When as many operations wait as may, the next one hears at once that the database has stopped."""
    monkeypatch.setattr(queue, "MAX_WAITING", 3)
    async with control(tmp_path, url) as running:
        _, token = await running.mint(HOST)
        running.store.gate.clear()
        tasks = [presenting(running, token, HOST, "v0")]
        await until(lambda: len(running.store.batches) == 1)
        tasks += [presenting(running, token, HOST, f"v{n}") for n in (1, 2, 3)]
        await asyncio.sleep(0)

        with pytest.raises(StoreUnavailable, match="too many changes are waiting"):
            await running.challenges.present(token, grant(HOST), "v4", client=HERE)

        running.store.gate.set()
        await asyncio.gather(*tasks)
        assert {"v0", "v1", "v2", "v3"} == running.values(HOST)


async def test_unavailable_store(running: Control) -> None:
    """While the database is away callers hear so and the DNS goes on; when it is back, so is the writer."""
    _, token = await running.mint(HOST)
    await running.challenges.present(token, grant(HOST), "before", client=HERE)

    with running.store.away():
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="the disk is full"):
                await running.challenges.present(token, grant(HOST), "meanwhile", client=HERE)
        assert {"before"} == running.values(HOST)

    await running.challenges.present(token, grant(HOST), "after", client=HERE)
    assert {"before", "after"} == running.values(HOST)


async def test_an_outage_is_told_once(running: Control) -> None:
    """However often the writer looks in vain, the log says once that the database is away, and once that it is back."""
    with structlog.testing.capture_logs() as logs:
        with running.store.away():
            _, token = await running.mint(HOST)
            for _ in range(5):
                with pytest.raises(StoreUnavailable):
                    await running.challenges.present(token, grant(HOST), "v", client=HERE)
        await until(lambda: len(logs) > 1)

    assert [
        ("no change can be made: DNS goes on with what is in memory", "the disk is full"),
        ("changes can be made again", ""),
    ] == [(log["event"], log.get("reason", "").rpartition(": ")[2]) for log in logs]


async def test_a_database_that_can_only_be_read(running: Control) -> None:
    """
    The condition and the log follow what can be written: reading and looking for expired values, which go well all the
    time, do not end the outage.
    """
    await until(lambda: "ok" == running.challenges.condition)
    with structlog.testing.capture_logs() as logs:
        with running.store.filled():
            _, token = await running.mint(HOST)
            with pytest.raises(StoreUnavailable):
                await running.challenges.present(token, grant(HOST), "v", client=HERE)
            proofs = running.store.proofs
            await until(lambda: running.store.proofs > proofs + 20)  # each comes after a look at everything else
            assert "failed: cannot use the database x.db: the disk is full: make room" == running.challenges.condition
            assert 1 == len(logs)
        await until(lambda: "ok" == running.challenges.condition)

    assert "changes can be made again" == logs[-1]["event"]
    assert 2 == len(logs)


async def test_an_idle_service_notices_that_nothing_can_be_written(tmp_path: Path, url: str) -> None:
    """Before any client asks for a change: it tries from time to time."""
    pace = Pace(follow=0.01, sweep=0.01, settled=0.02, prove=0.05)
    async with control(tmp_path, url, pace=pace) as running:
        with running.store.filled():
            await until(lambda: running.challenges.condition.startswith("failed: "))
        await until(lambda: "ok" == running.challenges.condition)


async def test_fault_of_ours(running: Control) -> None:
    """A fault of the program ends the writer, so that the process is started afresh; nobody is told a lie."""
    _, token = await running.mint(HOST)

    running.store.break_apply(RuntimeError("a fault"))

    with pytest.raises(asyncio.CancelledError):
        await running.challenges.present(token, grant(HOST), "v", client=HERE)

    with pytest.raises(RuntimeError, match="a fault"):
        await running.writer


def test_others_are_followed_within_a_second() -> None:
    """What another process commits, such as a new token, is looked for more than once a second."""
    assert Pace().follow < 1


async def test_follows_others(running: Control) -> None:
    """What another process commits shows soon: a new name, and that revoking took name and values away."""
    async with running.other_store() as other:
        assert running.values(HOST) is None
        _, token = await running.mint(HOST, store=other)
        await until(lambda: running.values(HOST) == set())
        await running.challenges.present(token, grant(HOST), "v", client=HERE)

        await other.revoke(token.id, at=running.clock.now)

        await until(lambda: running.values(HOST) is None)


async def test_catches_up_before_its_own(tmp_path: Path, url: str) -> None:
    """A change that was committed on top of somebody else's is published together with that one."""
    async with control(tmp_path, url, pace=Pace(follow=3600.0)) as running, running.other_store() as other:
        _, token = await running.mint(HOST)
        await running.challenges.present(token, grant(HOST), "v0", client=HERE)  # the first look is over
        await running.mint(OTHER, store=other)
        assert running.values(OTHER) is None

        await running.challenges.present(token, grant(HOST), "v", client=HERE)

        assert {"v0", "v"} == running.values(HOST)
        assert set() == running.values(OTHER)


async def test_repeating_what_somebody_else_committed(tmp_path: Path, url: str) -> None:
    """A value that is stored already, but not by this process, is served before its presenter is told so."""
    async with control(tmp_path, url, pace=Pace(follow=3600.0)) as running, running.other_store() as other:
        _, token = await running.mint(HOST)
        await running.challenges.present(token, grant(HOST), "v0", client=HERE)  # the first look is over
        present = Present(
            token_id=token.id,
            challenge_name=grant(HOST).challenge_name,
            value="v",
            expires_at=running.clock.now + LIFETIME,
            client=HERE,
        )
        await other.apply([present], serving=SERVING, now=running.clock.now)
        assert {"v0"} == running.values(HOST)

        outcome = await running.challenges.present(token, grant(HOST), "v", client=HERE)

        assert not outcome.changed
        assert {"v0", "v"} == running.values(HOST)


async def test_what_was_committed_while_starting(running: Control) -> None:
    """What others commit between the serials and the first look is published, and takes no new snapshot."""
    await running.mint(OTHER)
    await until(lambda: running.values(OTHER) == set())
    running.writer.cancel()
    await asyncio.gather(running.writer, return_exceptions=True)
    published, snapshots = await running.store.serials(), len(running.snapshots)
    await running.mint(HOST)

    again = Challenges(
        running.store,
        running.publisher,
        lone_node(running.store),
        serving=SERVING,
        published=published,
        lifetime=LIFETIME,
        clock=running.clock,
    )
    running.writer = asyncio.create_task(again.run())

    await until(lambda: running.values(HOST) == set())
    assert snapshots == len(running.snapshots)


async def test_other_static_records(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When another node begins with other static records, this one notes that it goes on with its own before it publishes
    the serial of the others.
    """
    serials = list[int]()
    compare = running.store.compare_statics

    async def note(digests: Mapping[Name, str]) -> None:
        serials.append(next(iter(running.snapshots[-1])).serial)
        await compare(digests)

    monkeypatch.setattr(running.store, "compare_statics", note)
    async with running.other_store() as other:
        (change,) = await other.begin_statics({APEX: "other"}, now=running.clock.now)
        await until(lambda: next(iter(running.snapshots[-1])).serial == change.serial)
        assert [True] == [serial < change.serial for serial in serials]
        (after,) = await other.begin_statics({APEX: "other"}, now=running.clock.now)
        assert change.serial < after.serial


async def test_journal_gap(running: Control) -> None:
    """If the journal cannot tell what happened, nameservers take a new snapshot, and changes go on after that."""
    _, token = await running.mint(HOST)
    await until(lambda: running.values(HOST) == set())

    with_gap = len(running.snapshots)
    with connect(running.directory) as database:
        database.execute("DELETE FROM changes")
        database.execute("UPDATE zones SET serial = serial + 7")
        database.execute(
            "INSERT INTO challenge_values (challenge_name, value, token_id, presented_at, expires_at) "
            "SELECT challenge_name, 'restored', token_id, 0, 99999999999 FROM grants JOIN hostnames ON id = hostname_id"
        )

    await until(lambda: len(running.snapshots) > with_gap)
    assert {"restored"} == running.values(HOST)
    await running.challenges.present(token, grant(HOST), "v", client=HERE)
    assert {"restored", "v"} == running.values(HOST)


async def test_commit_during_reload(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed while nameservers take a new snapshot is published after it."""
    reload = running.publisher.reload

    async def reload_and_more() -> None:
        await reload()
        await running.mint(OTHER)

    monkeypatch.setattr(running.publisher, "reload", reload_and_more)
    with connect(running.directory) as database:
        database.execute("DELETE FROM changes")
        database.execute("UPDATE zones SET serial = serial + 7")

    await until(lambda: running.values(OTHER) == set())


async def test_expiry(running: Control) -> None:
    """A value whose time is over goes from the DNS, however many there are; the others stay."""
    hosts = [f"h{n}.example.com" for n in range(70)]
    _, token = await running.mint(*hosts)
    hour = timedelta(hours=1)
    await asyncio.gather(
        *(
            running.challenges.present(token, grant(host), f"v{n}", client=HERE, lifetime=hour)
            for host in hosts
            for n in range(MAX_VALUES - 1)
        )
    )
    await running.challenges.present(token, grant(hosts[0]), "later", client=HERE, lifetime=2 * hour)

    running.clock.now += hour

    await until(lambda: all(not running.values(host) for host in hosts[1:]))
    await until(lambda: running.values(hosts[0]) == {"later"})


async def test_caller_hangs_up(running: Control) -> None:
    """An operation is carried out even if its caller does not wait for the end."""
    _, token = await running.mint(HOST)
    running.store.gate.clear()
    task = presenting(running, token, HOST, "v")
    await until(lambda: len(running.store.batches) == 1)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    running.store.gate.set()

    await running.challenges.present(token, grant(HOST), "next", client=HERE)
    assert {"v", "next"} == running.values(HOST)


async def test_refusals_are_recorded(running: Control) -> None:
    """Refusals before the queue are put on record, also those that came while the database was away."""
    _, token = await running.mint(HOST)
    start = running.clock.now

    with running.store.away():
        for n in (1, 2, 2):
            running.challenges.note_refusal(token, AuditAction.PRESENT, NotCovered(f"no {n}"), client=HERE)
    recorded: list[AuditEvent] = []
    while not recorded:
        recorded = [event for event in await running.store.audit(start) if event.result is AuditResult.REFUSED]

    assert ["no 1", "no 2 (2 times)"] == [event.reason for event in recorded]
    assert {(token.id, HERE, AuditAction.PRESENT)} == {
        (event.token_id, event.client, event.action) for event in recorded
    }


HOSTS = st.sampled_from([HOST, OTHER])
VALUES = st.sampled_from([f"v{n}" for n in range(MAX_VALUES + 2)])
OPERATIONS = st.lists(st.tuples(st.booleans(), HOSTS, VALUES), min_size=1, max_size=40)


class PresentAndCleanup(RuleBasedStateMachine):
    """Present and cleanup are a set of values for each hostname; whoever does what at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(mkdtemp(prefix="responder-test-"))
        url = new_database(self.directory)
        self.runner = asyncio.Runner()
        self.model: dict[str, set[str]] = {HOST: set(), OTHER: set()}
        self.context = control(self.directory, url)
        self.running = self.runner.run(self.context.__aenter__())
        _, self.token = self.runner.run(self.running.mint(HOST, OTHER))

    def teardown(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()
        rmtree(self.directory)

    @rule(operations=OPERATIONS)
    def at_once(self, operations: list[tuple[bool, str, str]]) -> None:
        """Any number of callers at the same moment."""
        expected: list[type] = []
        for is_present, host, value in operations:
            full = value not in self.model[host] and len(self.model[host]) >= MAX_VALUES
            expected.append(TooManyValues if is_present and full else Outcome)
            if not is_present:
                self.model[host].discard(value)
            elif not full:
                self.model[host].add(value)

        async def gather() -> list[object]:
            return list(
                await asyncio.gather(
                    *(
                        (presenting if is_present else cleaning)(self.running, self.token, host, value)
                        for is_present, host, value in operations
                    ),
                    return_exceptions=True,
                )
            )

        assert expected == [type(outcome) for outcome in self.runner.run(gather())]

    @rule(host=HOSTS)
    def clear(self, host: str) -> None:
        """An administrator clears a name, in another process."""

        async def clear() -> None:
            async with self.running.other_store() as other:
                if self.model[host]:
                    await other.clear(grant(host).challenge_name, now=self.running.clock.now)
            await until(lambda: self.running.values(host) == set())

        self.runner.run(clear())
        self.model[host] = set()

    @rule()
    def all_expire(self) -> None:
        """A day passes."""
        self.running.clock.now += LIFETIME
        self.runner.run(until(lambda: not self.running.values(HOST) and not self.running.values(OTHER)))
        self.model = {HOST: set(), OTHER: set()}

    @invariant()
    def served_as_stored(self) -> None:
        """The DNS shows what the model says, and so does the database."""
        stored = self.runner.run(self.running.store.values())
        for host, values in self.model.items():
            assert values == (self.running.values(host) or set())
            assert values == {live.value for live in stored if str(live.hostnames[0]) == host}


TestPresentAndCleanup = PresentAndCleanup.TestCase
TestPresentAndCleanup.settings = settings(max_examples=25, stateful_step_count=10)
