"""What the transactions of the store do, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from responder.dns.zone import Change
from responder.errors import (
    Invalid,
    NameTaken,
    NotAChallenge,
    NotCovered,
    NotFound,
    NotServed,
    PrerequisiteFailed,
    TooManyValues,
    Unauthenticated,
)
from responder.names import Name
from responder.store import (
    MAX_VALUES,
    AuditAction,
    AuditEvent,
    AuditResult,
    Cleanup,
    Expect,
    LiveValue,
    Outcome,
    Present,
    Store,
    UnservedZone,
    Update,
    journal,
    values,
)
from responder.store.postgresql import PostgreSQL
from responder.store.sqlite import SQLite
from responder.tokens.secret import Digest, digest
from responder.tokens.serving import Serving
from responder.tokens.token import Grant, Token
from responder.tokens.values import Effect, Held, settle
from tests.support.postgres import database_url
from tests.support.stores import (
    APEX,
    DAY,
    NOW,
    OTHER_APEX,
    SECOND,
    SERVING,
    START,
    cleanup,
    grant,
    name,
    new_token,
    present,
    shown,
    store,
)

__all__ = ["database_url", "store"]

# Zones and serials


async def test_a_zone_starts_at_the_time_and_keeps_its_serial(store: Store) -> None:
    """Registering a zone again changes nothing."""
    await store.mint(new_token("a"))
    await store.register_zones({OTHER_APEX: None, APEX: None}, now=NOW + DAY)
    assert await store.serials() == {APEX: START + 1, OTHER_APEX: START}


async def test_many_may_register_a_zone_at_once(database_url: str) -> None:
    """One of them makes the row; none of them fails."""
    several = [await Store.open(database_url) for _ in range(5)]
    await asyncio.gather(*(one.ping() for one in several))
    await asyncio.gather(*(one.register_zones({APEX: None}, now=NOW) for one in several))
    assert await several[0].serials() == {APEX: START}
    for one in several:
        await one.close()


async def test_a_serial_is_never_behind_the_clock(store: Store) -> None:
    """A change a day later jumps to that time, so a restored backup cannot repeat serials."""
    token = await store.mint(new_token("a"))
    applied = await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW + DAY)
    assert applied.changes == [Change(apex=APEX, previous=START + 1, serial=START + 86_400, names={name("a"): ("x",)})]


# Tokens


async def test_what_is_minted_is_what_is_found(store: Store) -> None:
    """A token comes back whole by digest, by id and in the list, instants to the second, its end rounded up."""
    half = timedelta(milliseconds=500)
    new = replace(
        new_token("a", "b"),
        description="for cluster x",
        expires_at=NOW + DAY + half,
        allow_from=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        account_thumbprint="thumb",
        created_at=NOW + half,
    )
    expected = Token(
        id=new.id,
        description="for cluster x",
        grants=(grant("a"), grant("b")),
        created_at=NOW,
        expires_at=NOW + DAY + SECOND,
        allow_from=new.allow_from,
        account_thumbprint="thumb",
    )
    assert await store.mint(new) == expected
    assert await store.find_token(Digest(new.digest or b"")) == expected
    assert await store.token(new.id) == expected
    later = await store.mint(new_token("b", at=NOW + SECOND))
    bare = await store.mint(new_token(at=NOW + 2 * SECOND))
    assert await store.tokens() == [expected, later, bare]


async def test_tokens_of_a_hostname(store: Store) -> None:
    """All tokens that are granted it are found, whole and oldest first, those revoked too."""
    first, _, last = [await store.mint(new_token(*labels)) for labels in (("a", "b"), ("b",), ("a",))]
    await store.revoke(first.id, at=NOW)

    found = await store.tokens_for(Name.parse("a.example.com"))

    assert {first.id, last.id} == {token.id for token in found}
    assert {"a.example.com", "b.example.com"} == {str(g.hostname) for t in found for g in t.grants if t.id == first.id}
    assert [] == await store.tokens_for(Name.parse("c.example.com"))


async def test_beginning_of_an_id(store: Store) -> None:
    """An id is found by how it begins, as long as no other one begins so."""
    first, second = (UUID(f"abcdef0{n}-2345-4678-9abc-def012345678") for n in (1, 2))
    for token_id in (first, second):
        await store.mint(replace(new_token("some"), id=token_id))

    assert first == await store.token_id("abcdef01") == await store.token_id(str(first))
    with pytest.raises(Invalid, match="several tokens have an id that begins with this text"):
        await store.token_id("abcdef")
    for unknown in ("abcdef03", "abcde_", "%"):
        with pytest.raises(NotFound):
            await store.token_id(unknown)


async def test_unknown_tokens_are_not_found(store: Store) -> None:
    """None by digest, `NotFound` by id."""
    assert await store.find_token(Digest(b"\0" * 32)) is None
    with pytest.raises(NotFound, match="responder token list"):
        await store.token(uuid4())
    with pytest.raises(NotFound, match="responder token list"):
        await store.revoke(uuid4(), at=NOW)


async def test_a_challenge_name_belongs_to_one_hostname(store: Store) -> None:
    """Another hostname cannot have it, and nothing of the refused token remains."""
    await store.mint(new_token("a"))
    thief = Grant(hostname=Name.parse("b.example.com"), challenge_name=name("a"), apex=APEX)
    new = replace(new_token("c"), grants=(grant("c"), thief))
    with pytest.raises(NameTaken, match=r"_acme-challenge\.a\.acme\.example\.com already belongs to a\.example\.com"):
        await store.mint(new)
    assert await store.find_token(Digest(new.digest or b"")) is None
    assert await shown(store) == {name("a"): ()}


SHARED = Name.parse("shared.acme.example.com")


def sharing(*labels: str, apex: Name = APEX) -> tuple[Grant, ...]:
    """Grants for hostnames beside the first zone that share one name."""
    return tuple(
        Grant(hostname=Name.parse(f"{label}.example.com"), challenge_name=SHARED, apex=apex) for label in labels
    )


def at_shared(token: Token, value: str, *, cleanup: bool = False) -> Present | Cleanup:
    if cleanup:
        return Cleanup(token_id=token.id, challenge_name=SHARED, value=value, client="192.0.2.1")
    return Present(token_id=token.id, challenge_name=SHARED, value=value, expires_at=NOW + DAY, client="192.0.2.1")


async def test_hostnames_of_one_token_can_share_a_name(store: Store) -> None:
    """The name has one set of values, which the audit finds for each of the hostnames."""
    token = await store.mint(replace(new_token(), grants=sharing("b", "a")))
    assert token.grants == sharing("a", "b")

    applied = await store.apply([at_shared(token, "x"), at_shared(token, "y")], serving=SERVING, now=NOW)

    assert [change.names for change in applied.changes] == [{SHARED: ("x", "y")}]
    assert await shown(store) == {SHARED: ("x", "y")}
    for live in await store.values(token.id):
        assert live.hostnames == (Name.parse("a.example.com"), Name.parse("b.example.com"))
    for label in "ab":
        events = await store.audit(NOW, Name.parse(f"{label}.example.com"))
        assert [(AuditAction.PRESENT, "x"), (AuditAction.PRESENT, "y")] == [
            (event.action, event.value) for event in events if event.value is not None
        ]
    await store.apply([at_shared(token, "x", cleanup=True)], serving=SERVING, now=NOW)
    assert ["y"] == await store.clear(SHARED, now=NOW)
    assert await shown(store) == {SHARED: ()}


async def test_limit_of_a_shared_name(store: Store) -> None:
    """The limit of values is that of the name, not of each hostname."""
    token = await store.mint(replace(new_token(), grants=sharing("a", "b")))
    presents = [at_shared(token, f"{number}") for number in range(MAX_VALUES + 1)]
    outcomes = (await store.apply(presents, serving=SERVING, now=NOW)).outcomes
    assert [Outcome] * MAX_VALUES + [TooManyValues] == [type(outcome) for outcome in outcomes]


async def test_a_shared_name_stays_until_its_last_hostname(store: Store) -> None:
    """Its values go with the last hostname that the token covers there, and nothing changes in DNS before."""
    token = await store.mint(replace(new_token(), grants=sharing("a", "b")))
    await store.apply([at_shared(token, "x")], serving=SERVING, now=NOW)
    before = await store.serials()

    await store.deny(token.id, [Name.parse("a.example.com")], at=NOW)

    assert before == await store.serials()
    assert await shown(store) == {SHARED: ("x",)}
    assert [live.hostnames for live in await store.values()] == [(Name.parse("b.example.com"),)]
    await store.deny(token.id, [Name.parse("b.example.com")], at=NOW)
    assert await shown(store) == {}
    change = await store.changes_since(APEX, before[APEX])
    assert change is not None
    assert change.names == {SHARED: None}


async def test_a_shared_name_ends_with_its_token(store: Store) -> None:
    """After revocation the name is free for any token."""
    token = await store.mint(replace(new_token(), grants=sharing("a", "b")))
    await store.apply([at_shared(token, "x")], serving=SERVING, now=NOW)
    await store.revoke(token.id, at=NOW)
    assert await shown(store) == {}
    heir = await store.mint(replace(new_token(), grants=sharing("b", "c")))
    assert await shown(store) == {SHARED: ()}
    await store.apply([at_shared(heir, "y")], serving=SERVING, now=NOW)
    assert await shown(store) == {SHARED: ("y",)}


async def test_a_shared_name_belongs_to_one_token(store: Store) -> None:
    """No second token gets one of its hostnames, or another hostname at it, by mint or allow."""
    await store.mint(replace(new_token(), grants=sharing("a", "b")))
    other = await store.mint(new_token("x"))
    for labels in ("a", "b", "c", "cd"):
        with pytest.raises(NameTaken, match=r"shared\.acme\.example\.com already belongs to [ab]\.example\.com"):
            await store.mint(replace(new_token(), grants=sharing(*labels)))
        with pytest.raises(NameTaken, match="already belongs to"):
            await store.allow(other.id, sharing(*labels), at=NOW)
    assert [other] == [await store.token(other.id)]


async def test_a_hostname_of_several_tokens_shares_no_name(store: Store) -> None:
    """Several tokens may cover one hostname, and then none of them can have another hostname at its name."""
    one, two = [await store.mint(replace(new_token(), grants=sharing("a"))) for _ in range(2)]
    with pytest.raises(NameTaken, match="already belongs to"):
        await store.allow(one.id, sharing("b"), at=NOW)
    await store.revoke(two.id, at=NOW)
    await store.allow(one.id, sharing("b"), at=NOW)
    with pytest.raises(NameTaken, match=r"already belongs to a\.example\.com"):
        await store.mint(replace(new_token(), grants=sharing("c", apex=OTHER_APEX)))


async def test_a_command_may_use_a_shared_name(store: Store) -> None:
    """The temporary token of a command gets one of the hostnames, and blocks no other token, but takes no new name."""
    lasting = await store.mint(replace(new_token(), grants=sharing("a", "b")))
    temporary = replace(new_token(), description="responder check", expires_at=NOW + DAY)
    await store.mint(replace(temporary, grants=sharing("a")))
    await store.allow(lasting.id, sharing("c"), at=NOW)
    for other in (
        replace(temporary, id=uuid4(), digest=digest("2"), grants=sharing("d")),
        replace(temporary, id=uuid4(), digest=digest("3"), description="team", grants=sharing("a")),
        replace(temporary, id=uuid4(), digest=digest("4"), expires_at=None, grants=sharing("a")),
    ):
        with pytest.raises(NameTaken, match="already belongs to"):
            await store.mint(other)


async def test_an_expired_token_makes_way_at_a_shared_name(store: Store) -> None:
    """Another token may replace it for all of its hostnames. For one alone it may not: it could write for the rest."""
    await store.mint(replace(new_token(), grants=sharing("a", "b"), expires_at=NOW + DAY))
    with pytest.raises(NameTaken, match="already belongs to"):
        await store.mint(replace(new_token(at=NOW + DAY - SECOND), grants=sharing("a", "b")))
    with pytest.raises(NameTaken, match=r"already belongs to b\.example\.com"):
        await store.mint(replace(new_token(at=NOW + DAY), grants=sharing("a")))
    command = replace(new_token(at=NOW + DAY), description="responder issue", expires_at=NOW + 2 * DAY)
    await store.mint(replace(command, grants=sharing("a")))
    await store.mint(replace(new_token(at=NOW + DAY), grants=sharing("a", "b")))


async def test_a_shared_account_takes_challenges_alone(store: Store) -> None:
    """An account that a client registered itself keeps its limit when a hostname is allowed at its name."""
    account = Grant(hostname=SHARED, challenge_name=SHARED, apex=APEX)
    token = await store.mint(replace(new_token(), grants=(account, *sharing("a"))))
    applied = await store.apply([at_shared(token, "v=spf1"), at_shared(token, "a" * 43)], serving=SERVING, now=NOW)
    assert [NotAChallenge, Outcome] == [type(outcome) for outcome in applied.outcomes]


async def test_a_hostname_has_one_challenge_name(store: Store) -> None:
    """Minting it with another alias is refused, naming the one it has."""
    await store.mint(new_token("a"))
    alias = Grant(hostname=Name.parse("a.example.com"), challenge_name=Name.parse("alias.acme.example.com"), apex=APEX)
    with pytest.raises(NameTaken, match=r"use --alias _acme-challenge\.a\.acme\.example\.com"):
        await store.mint(replace(new_token(), grants=(alias,)))


async def test_a_name_nobody_is_granted_any_more_can_be_handed_on(store: Store) -> None:
    """After revocation a hostname may get an alias, and another hostname the name that it left."""
    old = await store.mint(new_token("a"))
    await store.revoke(old.id, at=NOW)
    alias = Grant(hostname=Name.parse("a.example.com"), challenge_name=Name.parse("alias.acme.example.com"), apex=APEX)
    heir = Grant(hostname=Name.parse("b.example.com"), challenge_name=name("a"), apex=APEX)
    serial = (await store.serials())[APEX]
    await store.mint(replace(new_token(), grants=(alias,)))
    assert await shown(store) == {alias.challenge_name: ()}
    await store.mint(replace(new_token(), grants=(heir,)))
    assert await shown(store) == {alias.challenge_name: (), name("a"): ()}
    change = await store.changes_since(APEX, serial)
    assert change is not None
    assert change.names == {alias.challenge_name: (), name("a"): ()}


async def test_minting_needs_a_registered_zone(store: Store) -> None:
    """A grant in a zone that is not served is refused."""
    with pytest.raises(NotFound, match=r"there is no zone acme\.example\.org"):
        await store.mint(replace(new_token(), grants=(grant("a", Name.parse("acme.example.org")),)))


async def test_revocation_ends_names_and_values(store: Store) -> None:
    """Values that the token presented go, names that nobody else is granted cease to exist, others stay."""
    one = await store.mint(new_token("a", "b"))
    two = await store.mint(new_token("b"))
    await store.apply(
        [present(one, "a", "x"), present(one, "b", "y"), present(two, "b", "z")], serving=SERVING, now=NOW
    )
    before = await store.serials()
    await store.revoke(one.id, at=NOW)
    assert await shown(store) == {name("b"): ("z",)}
    change = await store.changes_since(APEX, before[APEX])
    assert change == Change(
        apex=APEX,
        previous=before[APEX],
        serial=before[APEX] + 1,
        names={name("a"): None, name("b"): ("z",)},
    )
    assert await store.token(one.id) == replace(one, revoked_at=NOW, last_used_at=NOW)
    after = await store.serials()
    await store.revoke(one.id, at=NOW + DAY)
    assert await store.serials() == after
    assert (await store.token(one.id)).revoked_at == NOW


async def test_an_expired_token_still_keeps_its_names(store: Store) -> None:
    """A name exists until the last token is revoked, not until it expires."""
    await store.mint(replace(new_token("a"), expires_at=NOW))
    assert await store.expire(now=NOW + DAY) == []
    assert await shown(store) == {name("a"): ()}


# Present and cleanup


async def test_present_and_cleanup(store: Store) -> None:
    """Both answer with the serial after the commit and publish what the name holds."""
    token = await store.mint(new_token("a"))
    applied = await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)
    assert applied.outcomes == [Outcome(apex=APEX, serial=START + 2, expires_at=NOW + DAY, changed=True)]
    assert applied.changes == [Change(apex=APEX, previous=START + 1, serial=START + 2, names={name("a"): ("x",)})]
    assert await store.values() == [
        LiveValue(
            hostnames=(Name.parse("a.example.com"),),
            challenge_name=name("a"),
            apex=APEX,
            value="x",
            token_id=token.id,
            presented_at=NOW,
            expires_at=NOW + DAY,
        )
    ]
    assert (await store.token(token.id)).last_used_at == NOW
    applied = await store.apply([cleanup(token, "a", "x")], serving=SERVING, now=NOW + SECOND)
    assert applied.outcomes == [Outcome(apex=APEX, serial=START + 3, expires_at=None, changed=True)]
    assert applied.changes == [Change(apex=APEX, previous=START + 2, serial=START + 3, names={name("a"): ()})]
    assert await store.values() == []


async def test_presenting_again_only_extends(store: Store) -> None:
    """One value, the later of both ends, the same serial, nothing to publish; it belongs to who came last."""
    token, other = await store.mint(new_token("a")), await store.mint(new_token("a"))
    first = await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)
    shorter = await store.apply([present(other, "a", "x", until=NOW + SECOND)], serving=SERVING, now=NOW)
    assert shorter.changes == []
    assert shorter.outcomes == [replace(first.outcomes[0], changed=False)]  # type: ignore[type-var]
    longer = await store.apply([present(other, "a", "x", until=NOW + 2 * DAY)], serving=SERVING, now=NOW)
    assert longer.outcomes == [Outcome(apex=APEX, serial=START + 2, expires_at=NOW + 2 * DAY, changed=False)]
    (value,) = await store.values()
    assert (value.token_id, value.expires_at) == (other.id, NOW + 2 * DAY)
    await store.revoke(token.id, at=NOW)
    assert await shown(store) == {name("a"): ("x",)}


PARENT = Serving(apexes=frozenset([APEX.parent]))


async def test_which_zone_holds_a_name_is_decided_once(store: Store) -> None:
    """A name stays in the zone that it was granted in, also where another zone is served that it would fit into."""
    await store.register_zones({APEX.parent: None}, now=NOW)
    token = await store.mint(new_token("a"))
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)
    stored, serials = await shown(store), await store.serials()

    refused = await store.apply([present(token, "a", "y"), cleanup(token, "a", "x")], serving=PARENT, now=NOW)

    fault = f"{name('a')} is in the zone {APEX}, which is not served here: ask your platform team"
    assert [(NotServed, fault)] * 2 == [(type(each), str(each)) for each in refused.outcomes]
    assert ([], stored, serials) == (refused.changes, await shown(store), await store.serials())
    assert [(name("a"), APEX)] == [(grant.challenge_name, grant.apex) for grant in (await store.token(token.id)).grants]
    assert [False] == [value.is_served(PARENT) for value in await store.values()]


async def test_alias_of_a_name(store: Store) -> None:
    """What a CNAME in the configuration would hide is refused, and does not count as served."""
    token = await store.mint(new_token("a", "b"))
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)
    hiding = replace(SERVING, aliases=frozenset([name("a")]))

    applied = await store.apply([present(token, "a", "y"), present(token, "b", "y")], serving=hiding, now=NOW)

    fault = f"{name('a')} is a CNAME in the configuration, which hides values: ask your platform team"
    assert [fault, Outcome(apex=APEX, serial=START + 3, expires_at=NOW + DAY, changed=True)] == [
        str(each) if isinstance(each, NotServed) else each for each in applied.outcomes
    ]
    assert [False, True] == [value.is_served(hiding) for value in await store.values()]


async def test_zones_that_are_not_served(store: Store) -> None:
    """They are listed with what valid tokens have in them; one without any is nobody's concern."""
    both, other = await store.mint(new_token("a", "b")), await store.mint(new_token("b"))
    await store.mint(replace(new_token("c"), expires_at=NOW))

    assert [UnservedZone(APEX, hostnames=2, tokens=2)] == await store.unserved(PARENT, now=NOW)
    assert [] == await store.unserved(SERVING, now=NOW)
    await store.revoke(both.id, at=NOW)
    assert [UnservedZone(APEX, hostnames=1, tokens=1)] == await store.unserved(PARENT, now=NOW)
    await store.revoke(other.id, at=NOW)
    assert [] == await store.unserved(PARENT, now=NOW)


async def test_name_that_changes_its_zone(store: Store) -> None:
    """A name is granted in another zone only when no token holds it in the old one any more; both zones show that."""
    await store.register_zones({APEX.parent: None}, now=NOW)
    moved = replace(grant("a"), apex=APEX.parent)
    token = await store.mint(new_token("a"))
    with pytest.raises(
        NameTaken, match=r"already has the challenge name \S+ in the zone acme\.example\.com: use --alias"
    ):
        await store.mint(replace(new_token(), grants=(moved,)))

    await store.revoke(token.id, at=NOW)
    await store.mint(replace(new_token(), grants=(moved,)))

    for apex, state in ((APEX, None), (APEX.parent, ())):
        change = await store.changes_since(apex, START)
        assert change is not None
        assert change.names == {name("a"): state}


async def test_a_batch_is_in_order_and_raises_each_serial_once(store: Store) -> None:
    """What is presented and cleaned up in one batch was never visible."""
    token = await store.mint(replace(new_token(), grants=(grant("a"), grant("b"), grant("c", OTHER_APEX))))
    elsewhere = replace(present(token, "a", "z"), challenge_name=grant("c", OTHER_APEX).challenge_name)
    applied = await store.apply(
        [
            present(token, "a", "x"),
            cleanup(token, "a", "x"),
            cleanup(token, "a", "never there"),
            present(token, "b", "y"),
            elsewhere,
        ],
        serving=SERVING,
        now=NOW,
    )
    assert applied.outcomes == [
        Outcome(apex=APEX, serial=START + 2, expires_at=NOW + DAY, changed=True),
        Outcome(apex=APEX, serial=START + 2, expires_at=None, changed=True),
        Outcome(apex=APEX, serial=START + 2, expires_at=None, changed=False),
        Outcome(apex=APEX, serial=START + 2, expires_at=NOW + DAY, changed=True),
        Outcome(apex=OTHER_APEX, serial=START + 2, expires_at=NOW + DAY, changed=True),
    ]
    assert sorted(applied.changes, key=lambda change: change.apex) == [
        Change(apex=APEX, previous=START + 1, serial=START + 2, names={name("b"): ("y",)}),
        Change(apex=OTHER_APEX, previous=START + 1, serial=START + 2, names={elsewhere.challenge_name: ("z",)}),
    ]
    assert (await store.apply([], serving=SERVING, now=NOW)).outcomes == []


async def test_a_refused_operation_does_not_hinder_the_others(store: Store) -> None:
    """Each error is the outcome of its own operation, and is written down with its text."""
    token, gone = await store.mint(new_token("a")), await store.mint(new_token("a"))
    expired = await store.mint(replace(new_token("a"), expires_at=NOW))
    await store.mint(new_token("b"))
    await store.revoke(gone.id, at=NOW)
    stranger = replace(token, id=uuid4())
    applied = await store.apply(
        [
            present(token, "b", "1"),
            present(token, "unheard-of", "2"),
            present(gone, "a", "3"),
            cleanup(expired, "a", "4"),
            present(stranger, "a", "5"),
            present(token, "a", "6"),
        ],
        serving=SERVING,
        now=NOW,
    )
    errors = [type(outcome) for outcome in applied.outcomes]
    assert errors == [NotCovered, NotCovered, Unauthenticated, Unauthenticated, Unauthenticated, Outcome]
    assert (await shown(store))[name("a")] == ("6",)
    refused = [audit for audit in await store.audit(NOW) if audit.result is AuditResult.REFUSED]
    assert [(one.value, one.reason) for one in refused] == [
        (str(number), str(outcome)) for number, outcome in enumerate(applied.outcomes[:5], start=1)
    ]
    assert (await store.token(gone.id)).last_used_at is None


async def test_a_full_name_takes_no_more(store: Store) -> None:
    """The seventeenth value is refused, unless the oldest is to make room; an expired one always does."""
    token = await store.mint(new_token("a"))
    for number in range(MAX_VALUES):
        until = NOW + (SECOND if number == 5 else DAY)
        await store.apply(
            [present(token, "a", f"v{number:02}", until=until)], serving=SERVING, now=NOW + number * SECOND / 100
        )
    full = [f"v{number:02}" for number in range(MAX_VALUES)]
    applied = await store.apply([present(token, "a", "more"), present(token, "a", "v03")], serving=SERVING, now=NOW)
    assert [type(outcome) for outcome in applied.outcomes] == [TooManyValues, Outcome]
    assert str(applied.outcomes[0]) == (f"{name('a')} already has 16 values: clean up those that are no longer needed")
    await store.apply([present(token, "a", "after expiry")], serving=SERVING, now=NOW + SECOND)
    assert set((await shown(store))[name("a")]) == {*full, "after expiry"} - {"v05"}
    await store.apply([present(token, "a", "evicting", evict=True)], serving=SERVING, now=NOW + SECOND)
    assert set((await shown(store))[name("a")]) == {*full, "after expiry", "evicting"} - {"v05", "v00"}
    evictions = [one.value for one in await store.audit(NOW) if one.action is AuditAction.EVICT]
    assert evictions == ["v05", "v00"]


def test_settling_takes_the_oldest_first() -> None:
    """Among live values the one presented longest ago makes room."""
    token_id = uuid4()
    held = {
        str(age): Held(token_id=token_id, presented_at=NOW - age * SECOND, expires_at=NOW + DAY)
        for age in range(MAX_VALUES)
    }
    operation = Present(
        token_id=token_id,
        challenge_name=name("a"),
        value="new",
        expires_at=NOW + DAY + SECOND / 2,
        client="192.0.2.1",
        evict_oldest=True,
    )
    effects, after = settle([operation], {name("a"): held}, lambda _: None, now=NOW)
    assert effects == [[Effect(changed=True, expires_at=NOW + DAY + SECOND, removed=("15",))]]
    assert after[name("a")].keys() == held.keys() - {"15"} | {"new"}


async def test_the_number_of_statements_does_not_grow_with_the_batch(store: Store) -> None:
    """One present and sixty-four need the same few statements."""
    labels = [f"h{number}" for number in range(64)]
    token = await store.mint(new_token(*labels))
    statements: list[list[str]] = []
    database = store._database
    assert isinstance(database, SQLite | PostgreSQL)
    engine = database._engine if isinstance(database, SQLite) else database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2].split()[:3]))
    await store.apply([present(token, "h0", "x")], serving=SERVING, now=NOW)
    one = [*statements]
    statements.clear()
    await store.apply([present(token, label, "y") for label in labels], serving=SERVING, now=NOW)
    assert one == statements
    beginning = ("BEGIN", "set_config('synchronous_commit',")
    assert len([statement for statement in statements if not {*statement} & {*beginning}]) == 8


# Expiry and clearing


async def test_expired_values_are_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest first, a limited number at once, each written down; then nothing is left to do."""
    monkeypatch.setattr(values, "MAX_EXPIRED", 2)
    token = await store.mint(new_token("a", "b"))
    await store.apply(
        [present(token, "a", str(number), until=NOW + number * SECOND) for number in range(1, 5)],
        serving=SERVING,
        now=NOW,
    )
    assert await store.expire(now=NOW) == []
    later = NOW + 3 * SECOND
    assert [change.names for change in await store.expire(now=later)] == [{name("a"): ("3", "4")}]
    assert [change.names for change in await store.expire(now=later)] == [{name("a"): ("4",)}]
    assert await store.expire(now=later) == []
    swept = [audit.value for audit in await store.audit(later) if audit.action is AuditAction.EXPIRE]
    assert swept == ["1", "2", "3"]


async def test_an_end_is_rounded_up(store: Store) -> None:
    """A value promised until a fraction of a second is served for at least that long."""
    token = await store.mint(new_token("a"))
    applied = await store.apply([present(token, "a", "x", until=NOW + SECOND / 2)], serving=SERVING, now=NOW)
    assert applied.outcomes == [Outcome(apex=APEX, serial=START + 2, expires_at=NOW + SECOND, changed=True)]
    assert await store.expire(now=NOW + SECOND * 0.9) == []
    assert len(await store.expire(now=NOW + SECOND)) == 1


async def test_clearing_by_hand(store: Store) -> None:
    """One value or all; what is not there is `NotFound`."""
    token = await store.mint(new_token("a"))
    await store.apply([present(token, "a", value) for value in "xyz"], serving=SERVING, now=NOW)
    assert await store.clear(name("a"), "y", now=NOW) == ["y"]
    assert await store.clear(name("a"), now=NOW) == ["x", "z"]
    with pytest.raises(NotFound, match="has no values"):
        await store.clear(name("a"), now=NOW)
    with pytest.raises(NotFound, match="has no such value"):
        await store.clear(name("a"), "y", now=NOW)
    assert await shown(store) == {name("a"): ()}


async def test_values_of_one_token(store: Store) -> None:
    """Those at the names that it is granted, whoever presented them."""
    one, two = await store.mint(new_token("a", "b")), await store.mint(new_token("b", "c"))
    await store.apply(
        [present(one, "a", "x"), present(two, "b", "y"), present(two, "c", "z")], serving=SERVING, now=NOW
    )
    assert [value.value for value in await store.values()] == ["x", "y", "z"]
    assert [value.value for value in await store.values(one.id)] == ["x", "y"]


# Journal and snapshot


async def test_the_journal_tells_the_present_state(store: Store) -> None:
    """All names touched since a serial, in one change; nothing if that is the present one."""
    token = await store.mint(new_token("a", "b"))
    since = (await store.serials())[APEX]
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW)
    await store.apply([present(token, "b", "y")], serving=SERVING, now=NOW)
    await store.apply([present(token, "a", "w")], serving=SERVING, now=NOW)
    change = await store.changes_since(APEX, since)
    names = {name("a"): ("w", "x"), name("b"): ("y",)}
    assert change == Change(apex=APEX, previous=since, serial=since + 3, names=names)
    assert await store.changes_since(APEX, since + 3) == Change(
        apex=APEX, previous=since + 3, serial=since + 3, names={}
    )


async def test_serials_that_the_journal_does_not_know(store: Store) -> None:
    """A serial from the future or from a database since replaced asks for a snapshot; so does one pruned."""
    token = await store.mint(new_token("a"))
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW + DAY)
    assert await store.changes_since(APEX, START + 2) is None
    assert await store.changes_since(APEX, START + 2 * 86_400) is None
    with pytest.raises(NotFound):
        await store.changes_since(Name.parse("acme.example.org"), START)


async def test_a_snapshot_comes_in_pieces_of_one_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serials first, then bounded chunks; what is committed meanwhile is not in it."""
    monkeypatch.setattr(journal, "CHUNK", 3)
    labels = [f"h{number}" for number in range(8)]
    token = await store.mint(replace(new_token(*labels), grants=(*map(grant, labels), grant("o", OTHER_APEX))))
    await store.apply([present(token, "h4", value) for value in "yx"], serving=SERVING, now=NOW)
    serials = await store.serials()
    pieces: list[Change] = []
    async for change in store.snapshot():
        if not pieces:
            await store.apply([present(token, "h7", "late")], serving=SERVING, now=NOW)
        pieces.append(change)
    assert {change.apex: change.serial for change in pieces[:2]} == serials
    assert [change.names for change in pieces[:2]] == [{}, {}]
    assert max(len(change.names) for change in pieces) <= 3
    names = {name: values for change in pieces for name, values in change.names.items()}
    expected = {name(label): () for label in labels} | {name("h4"): ("x", "y")}
    assert names == expected | {grant("o", OTHER_APEX).challenge_name: ()}


async def test_a_snapshot_may_be_left_early(store: Store) -> None:
    """Closing it gives its connection back."""
    await store.mint(new_token("a"))
    for _ in range(20):
        pieces = store.snapshot()
        await anext(pieces)
        await pieces.aclose()
    await store.ping()


# Audit


async def test_audit_tells_who_did_what(store: Store) -> None:
    """In order, by time and hostname or its tokens; refusals that the store never saw can be added."""
    token = await store.mint(new_token("a", "b"))
    await store.apply([present(token, "a", "x")], serving=SERVING, now=NOW + SECOND)
    refusal = AuditEvent(
        at=NOW + 2 * SECOND,
        action=AuditAction.AUTHENTICATE,
        result=AuditResult.REFUSED,
        client="192.0.2.9",
        reason="no such token",
    )
    await store.record([refusal])
    await store.record([])
    await store.revoke(token.id, at=NOW + 3 * SECOND)
    hostname = Name.parse("a.example.com")
    events = await store.audit(NOW)
    assert [event.action for event in events] == [
        AuditAction.MINT,
        AuditAction.MINT,
        AuditAction.PRESENT,
        AuditAction.AUTHENTICATE,
        AuditAction.REVOKE,
    ]
    assert events[3] == refusal
    assert await store.audit(NOW + SECOND, hostname) == [
        AuditEvent(
            at=NOW + SECOND,
            action=AuditAction.PRESENT,
            token_id=token.id,
            hostname=hostname,
            value="x",
            client="192.0.2.1",
        ),
        AuditEvent(at=NOW + 3 * SECOND, action=AuditAction.REVOKE, token_id=token.id),
    ]


async def test_what_changes_nothing_is_no_event(store: Store) -> None:
    """Repeated presents and cleanups of absent values leave no trace; a value that changes hands does."""
    token, other = await store.mint(new_token("a")), await store.mint(new_token("a"))
    absent = Update(steps=tuple(cleanup(token, "a", f"absent {number}") for number in range(40)))
    every = Cleanup(token_id=token.id, challenge_name=name("a"), value=None, client="192.0.2.1")
    later = NOW + SECOND
    await store.apply([present(token, "a", "x"), present(token, "a", "x")], serving=SERVING, now=later)
    await store.apply([present(token, "a", "x"), absent, cleanup(token, "a", "absent")], serving=SERVING, now=later)
    await store.apply([present(other, "a", "x")], serving=SERVING, now=later)
    await store.apply([every, every], serving=SERVING, now=later)
    assert [(event.action, event.value, event.token_id) for event in await store.audit(later)] == [
        (AuditAction.PRESENT, "x", token.id),
        (AuditAction.PRESENT, "x", other.id),
        (AuditAction.CLEANUP, "x", token.id),
    ]


async def test_a_refused_update_is_one_event(store: Store) -> None:
    """It is about the step that was refused; a prerequisite that does not hold is no refusal."""
    token = await store.mint(new_token("a", "b"))
    too_many = Update(steps=tuple(present(token, "b", f"{number}") for number in range(MAX_VALUES + 3)))
    unmet = Update(steps=(present(token, "a", "x"), _expect(token, "a", "y")))
    await store.apply([too_many, unmet], serving=SERVING, now=NOW)
    [refused] = [event for event in await store.audit(NOW) if event.result is AuditResult.REFUSED]
    assert (refused.action, refused.hostname, refused.value) == (
        AuditAction.PRESENT,
        Name.parse("b.example.com"),
        str(MAX_VALUES),
    )
    assert "already has 16 values" in str(refused.reason)


async def test_key_is_made_once(store: Store, database_url: str) -> None:
    """A key is made when first asked for, and the same for everybody from then on; another name has another key."""
    first = await store.key("one")
    again = await Store.open(database_url)

    assert 32 == len(first)
    assert first == await again.key("one")
    assert first != await again.key("two")
    await again.close()


async def test_a_rotated_token_has_two_secrets_for_a_while(store: Store) -> None:
    """The new secret has the token's own end, the old one ends with the grace; the token is what it was."""
    minted = await store.mint(first := new_token("a"))
    second = digest("second")
    rotated = await store.rotate(minted.id, second, at=NOW + SECOND, grace=DAY)
    assert rotated == replace(minted, generation=2)
    assert await store.find_token(second) == rotated
    assert await store.find_token(Digest(first.digest or b"")) == replace(minted, expires_at=NOW + SECOND + DAY)
    assert await store.find_generation(minted.id, 1) == replace(minted, expires_at=NOW + SECOND + DAY)
    assert await store.find_generation(minted.id, 2) == rotated
    assert await store.find_generation(minted.id, 3) is None
    assert await store.token(minted.id) == rotated
    assert await store.tokens() == [rotated]


async def test_changes_by_a_secret_that_was_replaced(store: Store) -> None:
    """Nothing changes by a secret whose grace is over, though the token is good; each within its grace is good."""
    token = await store.mint(new_token("a"))
    first = replace(present(token, "a", "first"), generation=1)
    await store.rotate(token.id, digest("second"), at=NOW, grace=DAY)
    second = replace(present(token, "a", "second"), generation=2)

    during = (await store.apply([first, second], serving=SERVING, now=NOW + DAY - SECOND)).outcomes
    after = (await store.apply([second, first, replace(first, generation=7)], serving=SERVING, now=NOW + DAY)).outcomes
    await store.rotate(token.id, digest("third"), at=NOW + DAY, grace=timedelta(0))
    at_once = (await store.apply([second, replace(second, generation=3)], serving=SERVING, now=NOW + DAY)).outcomes

    good, bad = Outcome, Unauthenticated
    assert [[good, good], [good, bad, bad], [bad, good]] == [[*map(type, each)] for each in (during, after, at_once)]


async def test_a_grace_never_lengthens_a_life(store: Store) -> None:
    """A secret that was to end soon does, whatever grace a later rotation gives; one that is over is forgotten."""
    minted = await store.mint(first := new_token("a"))
    await store.rotate(minted.id, second := digest("second"), at=NOW, grace=SECOND)
    third = await store.rotate(minted.id, digest("third"), at=NOW, grace=DAY)
    assert third.generation == 3
    found = await store.find_token(Digest(first.digest or b""))
    assert found is not None
    assert found.expires_at == NOW + SECOND
    await store.rotate(minted.id, digest("fourth"), at=NOW + SECOND, grace=timedelta(0))
    assert await store.find_token(Digest(first.digest or b"")) is None
    assert await store.find_token(second) is None
    assert [event.action for event in await store.audit(NOW)] == [AuditAction.MINT, *[AuditAction.ROTATE] * 3]


async def test_what_is_revoked_stays_so(store: Store) -> None:
    """No rotation, and no new or fewer grants, bring a revoked token back."""
    token = await store.mint(new_token("a"))
    await store.revoke(token.id, at=NOW)
    with pytest.raises(NotFound, match="was revoked, which cannot be undone: mint a new one"):
        await store.rotate(token.id, digest("new"), at=NOW, grace=DAY)
    with pytest.raises(NotFound, match="was revoked"):
        await store.allow(token.id, [grant("b")], at=NOW)
    with pytest.raises(NotFound, match="was revoked"):
        await store.deny(token.id, [grant("a").hostname], at=NOW)
    assert await shown(store) == {}


async def test_allowed_names_begin_to_exist(store: Store) -> None:
    """More grants make more names; one that is there already changes nothing; one of another hostname is refused."""
    token = await store.mint(new_token("a"))
    await store.mint(new_token("c"))
    allowed = await store.allow(token.id, [grant("a"), grant("b")], at=NOW)
    assert allowed == replace(token, grants=(grant("a"), grant("b")))
    assert await shown(store) == {name("a"): (), name("b"): (), name("c"): ()}
    thief = Grant(hostname=Name.parse("d.example.com"), challenge_name=name("c"), apex=APEX)
    with pytest.raises(NameTaken, match="already belongs to"):
        await store.allow(token.id, [grant("e"), thief], at=NOW)
    assert await store.token(token.id) == allowed


async def test_denied_names_lose_what_the_token_set(store: Store) -> None:
    """Its values go, and the name, unless another token is granted it; all names must be its own."""
    token = await store.mint(new_token("a", "b", "c"))
    other = await store.mint(new_token("b"))
    await store.apply(
        [present(token, label, "x") for label in "abc"] + [present(other, "b", "theirs")],
        serving=SERVING,
        now=NOW,
    )
    hostnames = [grant(label).hostname for label in "ab"]
    with pytest.raises(NotFound, match=r"has no grant for z\.example\.com"):
        await store.deny(token.id, [*hostnames, Name.parse("z.example.com")], at=NOW)
    before = await store.serials()
    denied = await store.deny(token.id, hostnames, at=NOW)
    assert [granted.hostname for granted in denied.grants] == [grant("c").hostname]
    assert await shown(store) == {name("b"): ("theirs",), name("c"): ("x",)}
    change = await store.changes_since(APEX, before[APEX])
    assert change is not None
    assert change.names == {name("a"): None, name("b"): ("theirs",)}


async def test_a_hash_that_was_taken_over_is_settled_once(store: Store) -> None:
    """A token without digest is found once somebody's secret matched its hash, and the hash is gone then."""
    token = await store.mint(replace(new_token("a"), digest=None, bcrypt=b"$2a$10$hash"))
    assert await store.find_bcrypt(token.id) == b"$2a$10$hash"
    assert await store.find_bcrypt(uuid4()) is None
    await store.settle_bcrypt(token.id, b"$2a$10$other", digest("wrong"))
    assert await store.find_token(digest("wrong")) is None
    await store.settle_bcrypt(token.id, b"$2a$10$hash", digest("right"))
    assert await store.find_token(digest("right")) == token
    assert await store.find_bcrypt(token.id) is None


def _expect(token: Token, label: str, *values: str, negated: bool = False, any_: bool = False) -> Expect:
    return Expect(
        token_id=token.id,
        challenge_name=name(label),
        refusal=PrerequisiteFailed("not so", 8),
        values=None if any_ else frozenset(values),
        negated=negated,
    )


async def test_an_update_takes_all_steps_or_none(store: Store) -> None:
    """One step that is refused undoes those before it, and nobody else's."""
    token = await store.mint(new_token("a", "b"))
    other = await store.mint(new_token("c"))
    good = Update(steps=(present(token, "a", "x"), present(token, "b", "y"), cleanup(token, "a", "x")))
    bad = Update(steps=(present(token, "a", "z"), present(token, "c", "stolen")))
    applied = await store.apply([good, bad, present(other, "c", "mine")], serving=SERVING, now=NOW)
    assert isinstance(applied.outcomes[0], Outcome)
    assert applied.outcomes[0].changed
    assert isinstance(applied.outcomes[1], NotCovered)
    assert isinstance(applied.outcomes[2], Outcome)
    assert await shown(store) == {name("a"): (), name("b"): ("y",), name("c"): ("mine",)}


async def test_an_update_goes_on_only_as_expected(store: Store) -> None:
    """Steps that only look are met by exactly those values, or by any, or by the contrary; the earlier ones count."""
    token = await store.mint(new_token("a"))
    await store.apply([present(token, "a", "x"), present(token, "a", "y")], serving=SERVING, now=NOW)
    met = [
        _expect(token, "a", "x", "y"),
        _expect(token, "a", any_=True),
        _expect(token, "a", "x", negated=True),
    ]
    unmet = [
        _expect(token, "a", "x"),
        _expect(token, "a", any_=True, negated=True),
        _expect(token, "a", "x", "y", negated=True),
    ]
    for expect in unmet:
        [outcome] = (
            await store.apply(
                [Update(steps=(cleanup(token, "a", "x"), present(token, "a", "x"), expect))], serving=SERVING, now=NOW
            )
        ).outcomes
        assert isinstance(outcome, PrerequisiteFailed)
        assert outcome.rcode == 8
    every = Cleanup(token_id=token.id, challenge_name=name("a"), value=None, client="192.0.2.1")
    [outcome] = (
        await store.apply([Update(steps=(*met, every, _expect(token, "a")))], serving=SERVING, now=NOW)
    ).outcomes
    assert isinstance(outcome, Outcome)
    assert await shown(store) == {name("a"): ()}
    cleaned = [
        event.value
        for event in await store.audit(NOW)
        if event.action is AuditAction.CLEANUP and event.result is AuditResult.DONE
    ]
    assert sorted(filter(None, cleaned)) == ["x", "y"]
