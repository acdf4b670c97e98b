"""The store against a plain model of it, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder.errors import NameTaken, NotCovered, NotFound, TooManyValues, Unauthenticated
from responder.names import Name
from responder.store import Outcome, Store
from responder.tokens import values as batch
from responder.tokens.token import Grant, Token
from tests.support.service import new_database
from tests.support.stores import APEX, NOW, SECOND, SERVING, cleanup, grant, name, new_token, present, shown

LABELS = "abcs"
GRANTED = ("ab", "b", "c")

SHARED = ("one", "two")
"""Hostnames that have the challenge name of `s`, if they are allowed to a token."""

Step = tuple[str, object]

operations = st.tuples(
    st.sampled_from(["present", "present", "cleanup"]),
    st.integers(0, 2),  # token
    st.sampled_from(LABELS),
    st.sampled_from("uvwxyz"),
    st.integers(1, 60),  # lifetime in seconds
    st.booleans(),  # evict
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.lists(operations, min_size=1, max_size=8)),
        st.tuples(st.just("apply"), st.lists(operations, min_size=1, max_size=8)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("expire"), st.none()),
        st.tuples(st.just("clear"), st.sampled_from(LABELS)),
        st.tuples(st.just("revoke"), st.integers(0, 2)),
        st.tuples(st.just("allow"), st.tuples(st.integers(0, 2), st.sampled_from(SHARED))),
        st.tuples(st.just("allow"), st.tuples(st.integers(0, 2), st.sampled_from(SHARED))),
        st.tuples(st.just("deny"), st.tuples(st.integers(0, 2), st.sampled_from(SHARED))),
    ),
    max_size=12,
)


class Model:
    """What should be in the store: plainly, without a database."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.revoked: set[int] = set()
        self.now = NOW
        # label -> value -> (presented, expires, token)
        self.sharing: set[tuple[int, str]] = set()
        self.held: dict[str, dict[str, tuple[datetime, datetime, int]]] = {label: {} for label in LABELS}

    def shown(self) -> dict[Name, tuple[str, ...]]:
        """What the DNS should show."""
        return {
            name(label): tuple(sorted(self.held[label]))
            for label in LABELS
            if any(self.covers(token, label) for token in range(3) if token not in self.revoked)
        }

    def covers(self, token: int, label: str) -> bool:
        """Whether the token covers the challenge name."""
        return label in GRANTED[token] or (label == "s" and any(one == token for one, _ in self.sharing))

    def apply(self, kind: str, token: int, label: str, value: str, lifetime: int, evict: bool) -> type:  # noqa: FBT001
        """One operation; returns the type of what should come of it."""
        if token in self.revoked:
            return Unauthenticated
        if not self.covers(token, label):
            return NotCovered
        held = self.held[label]
        if kind == "cleanup":
            held.pop(value, None)
            return Outcome
        if value not in held and len(held) == 3:
            expired = [old for old in held if held[old][1] <= self.now]
            if not expired and not evict:
                return TooManyValues
            del held[min(expired or held, key=lambda old: (held[old][0], old))]
        expires = self.now + lifetime * SECOND
        held[value] = (self.now, max(expires, held[value][1]) if value in held else expires, token)
        return Outcome

    def expire(self) -> None:
        """Drop what is over."""
        for held in self.held.values():
            for value in [value for value in held if held[value][1] <= self.now]:
                del held[value]

    def revoke(self, token: int) -> None:
        """End a token and drop its values."""
        self.revoked.add(token)
        self.sharing = {(one, host) for one, host in self.sharing if one != token}
        self.drop(token, LABELS)

    def allow(self, token: int, host: str) -> type | None:
        """Allow a hostname that shares a name; returns the type of the refusal."""
        if token in self.revoked:
            return NotFound
        after = self.sharing | {(token, host)}
        if len({one for one, _ in after}) > 1 and len({host for _, host in after}) > 1:
            return NameTaken
        self.sharing = after
        return None

    def deny(self, token: int, host: str) -> type | None:
        """Deny it; returns the type of the refusal."""
        if token in self.revoked or (token, host) not in self.sharing:
            return NotFound
        self.sharing -= {(token, host)}
        if not self.covers(token, "s"):
            self.drop(token, "s")
        return None

    def drop(self, token: int, labels: str) -> None:
        """Drop the values of a token."""
        for held in (self.held[label] for label in labels):
            for value in [value for value in held if held[value][2] == token]:
                del held[value]


def shared(host: str) -> Grant:
    """The grant of a hostname that has the challenge name of `s`."""
    return replace(grant("s"), hostname=Name.parse(f"{host}.example.org"))


async def take_step(store: Store, model: Model, kind: str, detail: object) -> None:
    """Do the same to the store and to the model, and compare what comes of it."""
    match kind, detail:
        case "apply", list(wanted):
            sent = [
                present(model.tokens[token], label, value, until=model.now + lifetime * SECOND, evict=evict)
                if verb == "present"
                else cleanup(model.tokens[token], label, value)
                for verb, token, label, value, lifetime, evict in wanted
            ]
            expected = [model.apply(*operation) for operation in wanted]
            applied = await store.apply(sent, serving=SERVING, now=model.now)
            assert expected == [type(outcome) for outcome in applied.outcomes]
        case "wait", int(seconds):
            model.now += seconds * SECOND
        case "clear", str(label):
            if model.held[label]:
                assert await store.clear(name(label), now=model.now) == sorted(model.held[label])
                model.held[label] = {}
        case "revoke", int(token):
            await store.revoke(model.tokens[token].id, at=model.now)
            model.revoke(token)
        case (("allow" | "deny"), (int(token), str(host))):
            refusal = model.allow(token, host) if kind == "allow" else model.deny(token, host)
            with pytest.raises(refusal) if refusal is not None else nullcontext():
                if kind == "allow":
                    await store.allow(model.tokens[token].id, [shared(host)], at=model.now)
                else:
                    await store.deny(model.tokens[token].id, [shared(host).hostname], at=model.now)
        case _:
            await store.expire(now=model.now)
            model.expire()


async def follow(store: Store, serial: int, names: dict[Name, tuple[str, ...]]) -> int:
    """Bring *names* up to date from the journal, as a reader does, and return the new serial."""
    change = await store.changes_since(APEX, serial)
    assert change is not None
    for changed, state in change.names.items():
        if state is None:
            names.pop(changed, None)
        else:
            names[changed] = state
    return change.serial


@pytest.fixture
def roomy_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names that are full with three values, so that examples need not be long."""
    with monkeypatch.context() as patch:
        patch.setattr(batch, "MAX_VALUES", 3)
        yield


@pytest.mark.usefixtures("roomy_names")
def test_the_store_does_what_the_model_says() -> None:
    """Whatever happens in whatever order: outcomes, values, snapshot, and a reader of the journal all agree."""

    async def check(url: str, script: list[Step]) -> None:
        store = await Store.open(url)
        await store.register_zones({APEX: None}, now=NOW)
        model = Model([await store.mint(new_token(*labels)) for labels in GRANTED])
        serial, names = (await store.serials())[APEX], await shown(store)
        for kind, detail in script:
            before = model.shown()
            await take_step(store, model, kind, detail)
            previous, serial = serial, await follow(store, serial, names)
            assert model.shown() == names == await shown(store)
            assert (serial > previous) is (before != names)
        assert {(value.challenge_name, value.value, value.expires_at) for value in await store.values()} == {
            (name(label), value, held[value][1]) for label, held in model.held.items() for value in held
        }
        await store.close()

    @settings(max_examples=40)
    @given(steps)
    def run(script: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(check(new_database(Path(directory)), script))

    run()
