"""The store against a plain model of it, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from responder.errors import NotCovered, TooManyValues, Unauthenticated
from responder.names import Name
from responder.store import Outcome, Store
from responder.tokens import values as batch
from responder.tokens.token import Token
from tests.support.service import new_database
from tests.support.stores import APEX, NOW, SECOND, SERVING, cleanup, name, new_token, present, shown

LABELS = "abc"
GRANTED = ("ab", "b", "c")

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
        self.held: dict[str, dict[str, tuple[datetime, datetime, int]]] = {label: {} for label in LABELS}

    def shown(self) -> dict[Name, tuple[str, ...]]:
        """What the DNS should show."""
        return {
            name(label): tuple(sorted(self.held[label]))
            for label in LABELS
            if any(label in GRANTED[token] for token in range(3) if token not in self.revoked)
        }

    def apply(self, kind: str, token: int, label: str, value: str, lifetime: int, evict: bool) -> type:  # noqa: FBT001
        """One operation; returns the type of what should come of it."""
        if token in self.revoked:
            return Unauthenticated
        if label not in GRANTED[token]:
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
        for held in self.held.values():
            for value in [value for value in held if held[value][2] == token]:
                del held[value]


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
