"""DNS updates, from signed octets to what the DNS shows and the rcode that their sender reads."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from itertools import product
from uuid import UUID, uuid4

import dns.edns
import dns.message
import dns.tsig
import dns.update
import pytest
import structlog

from responder import metrics
from responder.config import ApiSettings
from responder.dns.wire import Transport
from responder.errors import NotFound
from responder.limits import Limits
from responder.names import Name
from responder.store import MAX_VALUES, AuditEvent, AuditResult, NewToken
from responder.tokens.secret import digest, tsig_secret
from responder.tokens.token import Grant, Token
from responder.update import replays, updates
from responder.update.tsig import KeyName
from tests.support.processes import PATIENCE
from tests.support.service import APEX, LIFETIME, Control, grant, running, until, url
from tests.support.updates import (
    ANY,
    ANY_TYPE,
    CLIENT,
    FUDGE,
    IN,
    NONE,
    SOA,
    TXT,
    A,
    Desk,
    Key,
    add,
    delete,
    delete_all,
    key_of,
    message,
    name,
    rcode,
    record,
    text,
    tsig_of,
    verify,
)
from tests.support.zones import OTHER, VALUE

__all__ = ["running", "url"]

HOST, YOURS = "some.example.com", "other.example.com"
MINE = "_acme-challenge.some.acme.example.com."
THEIRS = "_acme-challenge.other.acme.example.com."
ZONE = "acme.example.com."


@pytest.fixture
def desk(running: Control) -> Desk:
    """What answers updates there."""
    return Desk(running)


@pytest.fixture
async def key(running: Control) -> Key:
    """The key of a token for one hostname."""
    _, token = await running.mint(HOST)
    await until(lambda: running.values(HOST) is not None)
    return key_of(token)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What the log says, with what every line of one update has in common."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        yield events


# What updates do


async def test_add_and_delete(running: Control, desk: Desk, key: Key) -> None:
    """An add is served when its sender reads NOERROR, a delete no longer; each may come twice."""
    for _ in range(2):
        assert "NOERROR" == await desk.send(key, add(MINE, VALUE))
        assert {VALUE} == running.values(HOST)
    assert "NOERROR" == await desk.send(key, add(MINE, OTHER))
    assert {VALUE, OTHER} == running.values(HOST)
    for _ in range(2):
        assert "NOERROR" == await desk.send(key, delete(MINE, VALUE))
        assert {OTHER} == running.values(HOST)


@pytest.mark.parametrize("rrtype", [TXT, ANY_TYPE])
async def test_delete_of_an_rrset(running: Control, desk: Desk, key: Key, rrtype: int) -> None:
    """Deleting the RRset, or everything at the name, removes every value; together with an add, all but that one."""
    assert "NOERROR" == await desk.send(key, add(MINE, VALUE), add(MINE, OTHER))
    assert {VALUE, OTHER} == running.values(HOST)

    assert "NOERROR" == await desk.send(key, delete_all(MINE, rrtype), add(MINE, "new"))
    assert {"new"} == running.values(HOST)
    assert "NOERROR" == await desk.send(key, delete_all(MINE, rrtype))
    assert set() == running.values(HOST)


async def test_order_of_changes(running: Control, desk: Desk, key: Key) -> None:
    """The changes of one update are made in their order (RFC 2136, section 3.4.2.7)."""
    assert "NOERROR" == await desk.send(key, add(MINE, VALUE), delete(MINE, VALUE), add(MINE, OTHER))
    assert {OTHER} == running.values(HOST)


async def test_several_names(running: Control, desk: Desk) -> None:
    """One update may change several names of the token, in any letter case."""
    _, token = await running.mint(HOST, YOURS)

    assert "NOERROR" == await desk.send(key_of(token), add(MINE.upper(), VALUE), add(THEIRS, OTHER))

    assert ({VALUE}, {OTHER}) == (running.values(HOST), running.values(YOURS))


async def test_ttl_means_nothing(running: Control, desk: Desk, key: Key) -> None:
    """Whatever its TTL, a value stays for the time that the settings say, and is served with the zone's TTL."""
    assert "NOERROR" == await desk.send(key, add(MINE, VALUE, ttl=0), add(MINE, OTHER, ttl=0xFFFFFFFF))

    assert {running.clock.now + LIFETIME} == {value.expires_at for value in await running.store.values()}


async def test_what_changes_nothing(running: Control, desk: Desk, key: Key) -> None:
    """An empty update, and deletions of what cannot be there, are done without touching anything (section 3.4.2.4)."""
    assert "NOERROR" == await desk.send(key, add(MINE, VALUE))
    before = await running.store.serials()

    assert "NOERROR" == await desk.send(key)
    assert "NOERROR" == await desk.send(
        key,
        record(MINE, A, ANY),
        record(MINE, A, NONE, 0, bytes(4)),
        record(MINE, TXT, NONE, 0, text("two", "strings")),
        record(MINE, TXT, NONE, 0, text("\n")),
        delete(MINE, "absent"),
    )

    assert {VALUE} == running.values(HOST)
    assert before == await running.store.serials()


# In which order


async def test_first_come_first_served(running: Control, desk: Desk, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update whose token is found late holds up the later ones of that token, and of no other."""
    _, other = await running.mint(YOURS)
    find, found = running.store.find_generation, asyncio.Event()
    late = iter([found])

    async def find_late(token_id: UUID, generation: int) -> Token | None:
        if token_id == KeyName(*_parts(key)).token_id and (event := next(late, None)) is not None:
            await event.wait()
        return await find(token_id, generation)

    monkeypatch.setattr(running.store, "find_generation", find_late)
    adding, deleting = (
        desk.start(key.sign(message(change, ident=ident), desk.now))
        for ident, change in enumerate((add(MINE, VALUE), delete(MINE, VALUE)))
    )
    assert "NOERROR" == await desk.send(key_of(other), add(THEIRS, OTHER))
    assert not adding.done()
    assert not deleting.done()
    found.set()

    assert ["NOERROR"] * 2 == [rcode(await reply) for reply in (adding, deleting)]
    assert (set(), {OTHER}) == (running.values(HOST), running.values(YOURS))


# What they may not do


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add(THEIRS, VALUE), "REFUSED"),
        (delete_all(THEIRS, ANY_TYPE), "REFUSED"),
        (record(MINE, A, IN, 60, bytes(4)), "REFUSED"),
        (add("_acme-challenge.some.example.com.", VALUE), "NOTZONE"),
        (record(MINE, TXT, ANY, 1), "FORMERR"),
    ],
)
async def test_changes_that_are_not_made(running: Control, desk: Desk, key: Key, change: bytes, expected: str) -> None:
    """Names of others, other types and malformed changes have the rcode of RFC 2136; nothing of the update is done."""
    _, yours = await running.mint(YOURS)
    await running.challenges.present(yours, grant(YOURS), "theirs", client="192.0.2.1")

    for changes in ([change], [add(MINE, VALUE), change], [change, add(MINE, VALUE)]):
        assert expected == await desk.send(key, *changes)

    assert (set(), {"theirs"}) == (running.values(HOST), running.values(YOURS))


async def test_too_many_values(running: Control, desk: Desk, key: Key) -> None:
    """More values than a name may hold are refused, all of them."""
    assert "REFUSED" == await desk.send(key, *(add(MINE, str(n)) for n in range(MAX_VALUES + 1)))
    assert set() == running.values(HOST)

    assert "NOERROR" == await desk.send(key, *(add(MINE, str(n)) for n in range(MAX_VALUES)))
    assert "REFUSED" == await desk.send(key, add(MINE, "one more"))
    assert MAX_VALUES == len(running.values(HOST) or ())


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        (name(ZONE) + struct.pack("!HH", TXT, IN), "FORMERR"),
        (name("example.com") + struct.pack("!HH", SOA, IN), "NOTAUTH"),
        (name("some.acme.example.com") + struct.pack("!HH", SOA, IN), "NOTAUTH"),
        (name(ZONE) + struct.pack("!HH", SOA, 3), "NOTAUTH"),
        (name(ZONE) + struct.pack("!HH", SOA, ANY), "NOTAUTH"),
    ],
)
async def test_zone_section(running: Control, desk: Desk, key: Key, zone: bytes, expected: str) -> None:
    """The zone is ours, of class IN, asked for by its SOA: nameservers look at that, but they face the internet."""
    request = key.sign(message(add(MINE, VALUE), zone=zone), desk.now)
    reply = await desk.ask(request)

    verify(reply, request, key, desk.now)
    assert expected == rcode(reply)
    assert set() == running.values(HOST)


@pytest.mark.parametrize(
    "changes",
    [
        [b"\xc0\xff" + add(MINE, VALUE)[len(name(MINE)) :]],
        [b"\xc0\x22" + add(MINE, VALUE)[len(name(MINE)) :]],
        [add("a." * 120 + "acme.example.com", VALUE)],
        [add(MINE, VALUE), b"\x07example\x40\0" + add(MINE, VALUE)[len(name(MINE)) :]],
    ],
    ids=["pointer out of the message", "pointer to itself", "long name", "label of no kind"],
)
async def test_malformed_messages(running: Control, desk: Desk, key: Key, changes: list[bytes]) -> None:
    """What cannot be read is FORMERR, whoever signed it; or not even taken to be signed."""
    reply = await desk.ask(key.sign(message(*changes), desk.now))

    assert rcode(reply) in ("FORMERR", "SERVFAIL")
    assert set() == running.values(HOST)


@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (1, 1), (2, 0), (0, 65_535)])
async def test_wrong_counts(running: Control, desk: Desk, key: Key, counts: tuple[int, int]) -> None:
    """A header that counts other records than there are is no update."""
    packet = message(add(MINE, VALUE))
    packet = packet[:6] + struct.pack("!HH", *counts) + packet[10:]

    reply = await desk.ask(key.sign(packet, desk.now))

    assert rcode(reply) in ("FORMERR", "SERVFAIL")
    assert set() == running.values(HOST)


async def test_other_additional_records(desk: Desk, key: Key) -> None:
    """Additional records in front of the signature mean nothing."""
    padded = key.sign(message(add(MINE, VALUE), additional=[record(".", 41, 1232), record(MINE, A, IN)]), desk.now)

    assert "NOERROR" == rcode(await desk.ask(padded))


OPTION = struct.pack("!HH", 10, 7) + bytes(7)


@pytest.mark.parametrize(
    ("opt", "expected"),
    [(record(".", 41, 1232, 1 << 16), 16), (record(".", 41, 1232, 0, OPTION), 1)],
    ids=["another version of EDNS", "a cookie that is none"],
)
async def test_opt_records_of_another_kind(running: Control, desk: Desk, key: Key, opt: bytes, expected: int) -> None:
    """What is wrong with the OPT of an update is said in a reply that is signed, and nothing is done."""
    request = key.sign(message(add(MINE, VALUE), additional=[opt]), desk.now)
    reply = await desk.ask(request)

    verify(reply, request, key, desk.now)
    with_extension = dns.message.from_wire(reply, keyring=False, ignore_trailing=True)
    assert expected == with_extension.rcode()
    assert set() == running.values(HOST)


# Prerequisites

HELD = [VALUE, OTHER]
IN_USE, UNUSED = record(MINE, ANY_TYPE, ANY), record(MINE, ANY_TYPE, NONE)
SET, NO_SET = record(MINE, TXT, ANY), record(MINE, TXT, NONE)
A_SET, NO_A_SET = record(MINE, A, ANY), record(MINE, A, NONE)


def exactly(*values: str) -> list[bytes]:
    return [record(MINE, TXT, IN, 0, text(value)) for value in values]


PREREQUISITES: list[tuple[list[bytes], list[str], str]] = [
    ([IN_USE], HELD, "NOERROR"),
    ([IN_USE], [], "NXDOMAIN"),
    ([UNUSED], [], "NOERROR"),
    ([UNUSED], HELD, "YXDOMAIN"),
    ([SET], HELD, "NOERROR"),
    ([SET], [], "NXRRSET"),
    ([NO_SET], [], "NOERROR"),
    ([NO_SET], HELD, "YXRRSET"),
    ([A_SET], HELD, "NXRRSET"),
    ([NO_A_SET], HELD, "NOERROR"),
    (exactly(VALUE, OTHER), HELD, "NOERROR"),
    (exactly(OTHER, VALUE, VALUE), HELD, "NOERROR"),
    (exactly(VALUE), HELD, "NXRRSET"),
    (exactly(VALUE, OTHER, "more"), HELD, "NXRRSET"),
    (exactly(VALUE), [], "NXRRSET"),
    ([record(MINE, A, IN, 0, bytes(4))], HELD, "NXRRSET"),
    ([record(MINE, TXT, IN, 0, text("two", "strings"))], HELD, "NXRRSET"),
    ([IN_USE, SET, NO_A_SET, *exactly(*HELD)], HELD, "NOERROR"),
    ([IN_USE, NO_SET], HELD, "YXRRSET"),
    ([record(MINE, TXT, ANY, 1)], HELD, "FORMERR"),
    ([record("example.com", ANY_TYPE, ANY)], HELD, "NOTZONE"),
]


async def test_prerequisites(running: Control, desk: Desk, key: Key) -> None:
    """All five forms of prerequisites (RFC 2136, section 2.4): if one does not hold, nothing is done."""
    for prerequisites, held, expected in PREREQUISITES:
        assert "NOERROR" == await desk.send(key, delete_all(MINE), *(add(MINE, value) for value in held))

        assert expected == await desk.send(key, prerequisites=prerequisites)
        assert expected == await desk.send(key, delete_all(MINE), add(MINE, "new"), prerequisites=prerequisites)

        assert ({"new"} if expected == "NOERROR" else set(held)) == running.values(HOST)


async def test_prerequisites_of_others(running: Control, desk: Desk, key: Key) -> None:
    """What is at names of others is not told by a prerequisite, whether it would hold or not."""
    _, yours = await running.mint(YOURS)
    await running.challenges.present(yours, grant(YOURS), "theirs", client="192.0.2.1")

    for owner in (THEIRS, ZONE, "ns1.acme.example.com", "nobody.acme.example.com"):
        for rrtype, rclass in product((TXT, A, ANY_TYPE), (ANY, NONE)):
            assert "REFUSED" == await desk.send(key, prerequisites=[record(owner, rrtype, rclass)])


# Who may


async def test_algorithms(running: Control, desk: Desk, key: Key) -> None:
    """The strong algorithms are good, all with the same secret."""
    for algorithm in ("hmac-sha256.", "hmac-sha384.", "hmac-sha512."):
        assert "NOERROR" == await desk.send(Key(key.name, key.secret, algorithm), add(MINE, algorithm))
    assert 3 == len(running.values(HOST) or ())


@pytest.mark.parametrize("algorithm", ["hmac-sha224.", "hmac-sha1.", "hmac-md5.sig-alg.reg.int."])
async def test_weak_algorithms(running: Control, desk: Desk, key: Key, algorithm: str) -> None:
    """The weak ones are BADKEY unless somebody asked for them; the log says which it was."""
    weak = Key(key.name, key.secret, algorithm)
    request = weak.sign(message(add(MINE, VALUE)), desk.now)

    with structlog.testing.capture_logs() as logged:
        reply = await desk.ask(request)
    assert ("NOTAUTH", 17, b"") == (rcode(reply), tsig_of(reply, weak).error, tsig_of(reply, weak).mac)
    assert [("signature refused", "BADKEY", algorithm)] == [(e["event"], e["error"], e["algorithm"]) for e in logged]
    assert set() == running.values(HOST)
    configured = Desk(running, algorithms=(algorithm.removesuffix(".sig-alg.reg.int.").removesuffix("."),))
    assert "NOERROR" == await configured.send(weak, add(MINE, VALUE))


async def test_forgeries(running: Control, desk: Desk, key: Key) -> None:
    """Without a good signature nothing is looked up and nothing is done; the log is not filled."""
    forged = Key(key.name, bytes(32))
    stranger = Key("somebody", bytes(32))
    senders = [(sender, n) for n in range(50) for sender in (forged, stranger)]
    with structlog.testing.capture_logs() as logged, running.store.away():
        replies = [await desk.ask(sender.sign(message(add(MINE, VALUE), ident=n), desk.now)) for sender, n in senders]
        assert not desk.updates._under_way

    assert {"NOTAUTH"} == set(map(rcode, replies))
    assert ["BADSIG", "BADKEY"] == [event["error"] for event in logged]
    assert set() == running.values(HOST)


async def test_other_networks(running: Control, desk: Desk) -> None:
    """A token that is limited to networks is good from there alone, for updates as for anything else."""
    _, token = await running.mint(HOST, allow_from=(ip_network("192.0.2.0/24"),))

    assert "REFUSED" == await desk.send(key_of(token), add(MINE, VALUE), client="198.51.100.7")
    assert not running.values(HOST)
    assert "NOERROR" == await desk.send(key_of(token), add(MINE, VALUE), client="192.0.2.99")
    assert [(token.id, "198.51.100.7")] == [(event.token_id, event.client) for event in await _refusals(running)]


async def test_revoked_and_expired(running: Control, desk: Desk, key: Key) -> None:
    """The key of a token that was revoked or has expired is good for nothing, though it signs well."""
    _, expiring = await running.mint(YOURS, expires_at=running.clock.now + timedelta(seconds=5))
    await running.store.revoke(KeyName(*_parts(key)).token_id, at=running.clock.now)
    running.clock.now += timedelta(seconds=5)

    assert "REFUSED" == await desk.send(key, add(MINE, VALUE))
    assert "REFUSED" == await desk.send(key_of(expiring), add(THEIRS, VALUE))
    assert "REFUSED" == await desk.send(key)


async def test_rotated(running: Control, desk: Desk) -> None:
    """After a rotation the new secret has a key of its own; that of the old one ends with it."""
    _, old = await running.mint(HOST)
    new = await running.store.rotate(old.id, digest("new"), at=running.clock.now, grace=timedelta(hours=1))

    for token in (old, new):
        assert "NOERROR" == await desk.send(key_of(token), add(MINE, str(token.generation)))
    running.clock.now += timedelta(hours=1)
    assert "REFUSED" == await desk.send(key_of(old), add(MINE, VALUE))
    assert "NOERROR" == await desk.send(key_of(new), delete(MINE, "1"))
    assert {"2"} == running.values(HOST)


async def test_no_such_generation(running: Control, desk: Desk, key: Key) -> None:
    """A key that was never handed out, or whose secret is long gone, is refused, even if somebody could make it."""
    token_id, _ = _parts(key)
    never = tsig_secret(bytes(range(32)), f"{token_id}-7")

    assert "REFUSED" == await desk.send(Key(f"{token_id}-7", never), add(MINE, VALUE))


async def test_account_without_a_host(running: Control, desk: Desk) -> None:
    """An account that a client registered adds answers to challenges and nothing else, and may delete anything."""
    own = Name.parse(f"{uuid4()}.acme.example.com")
    new = NewToken(
        digest=digest("account"),
        grants=(Grant(hostname=own, challenge_name=own, apex=APEX),),
        created_at=running.clock.now,
    )
    key = key_of(await running.store.mint(new))

    assert "REFUSED" == await desk.send(key, add(own.fqdn, "v=spf1 -all"))
    assert "REFUSED" == await desk.send(key, add(own.fqdn, VALUE), add(own.fqdn, "short"))
    assert not running.shown(own)
    assert "NOERROR" == await desk.send(key, add(own.fqdn, VALUE), delete(own.fqdn, "short"))
    assert {VALUE} == running.shown(own)


async def test_pinned(running: Control, desk: Desk, logged: list[structlog.typing.EventDict]) -> None:
    """A token that is pinned to an ACME account cannot add by update, where its account cannot be shown."""
    token = await _pinned(running)

    assert "REFUSED" == await desk.send(key_of(token), add(MINE, VALUE))

    assert not running.values(HOST)
    assert "use POST /present" in str(logged[-1]["reason"])
    (event,) = await _refusals(running)
    assert "use POST /present" in str(event.reason)
    assert "NOERROR" == await desk.send(key_of(token), delete_all(MINE))


async def test_alias_in_another_place(running: Control, desk: Desk) -> None:
    """An update changes the name that it says: a hostname's own name in the zone is not short for an alias."""
    host = grant("www.acme.example.com").hostname
    alias = Grant(hostname=host, challenge_name=grant("elsewhere.example.com").challenge_name, apex=APEX)
    new = NewToken(digest=digest("x"), grants=(alias,), created_at=running.clock.now)
    key = key_of(await running.store.mint(new))

    assert "REFUSED" == await desk.send(key, add("_acme-challenge.www.acme.example.com.", VALUE))
    assert "NOERROR" == await desk.send(key, add(str(alias.challenge_name), VALUE))


# Limits


@pytest.fixture
def two(running: Control) -> Desk:
    """What answers updates where a token is good for two requests a minute."""
    return Desk(running, limits=Limits(ApiSettings.model_validate({"limits": {"per_token": "2/minute"}})))


async def test_too_many_with_one_token(running: Control, two: Desk, key: Key) -> None:
    """More than a token is good for are turned down, signed, and do nothing; other tokens' are not."""
    _, other = await running.mint(YOURS)
    assert ["NOERROR"] * 2 == [await two.send(key, add(MINE, VALUE)) for _ in range(2)]

    assert "SERVFAIL" == await two.send(key, delete_all(MINE))
    assert {VALUE} == running.values(HOST)
    assert "NOERROR" == await two.send(key_of(other), add(THEIRS, OTHER))


async def test_changes_count(running: Control, two: Desk, key: Key) -> None:
    """An update counts as many times as it has changes: one of many must not be as good as one of few."""
    _, other = await running.mint(YOURS)

    assert "SERVFAIL" == await two.send(key, *(delete(MINE, str(number)) for number in range(3)))
    assert "NOERROR" == await two.send(key, add(MINE, VALUE), add(MINE, OTHER))
    assert "SERVFAIL" == await two.send(key)
    assert "NOERROR" == await two.send(key_of(other), add(THEIRS, VALUE), delete(THEIRS, VALUE))


async def test_both_ways_count(running: Control, two: Desk) -> None:
    """What a token does over HTTP counts as well: it is one token."""
    _, token = await running.mint(HOST)
    two.limits.count_use(token.id)
    assert ["NOERROR", "SERVFAIL"] == [await two.send(key_of(token), add(MINE, VALUE)) for _ in range(2)]


async def test_keys_that_are_no_longer_good_do_not_count(running: Control, two: Desk) -> None:
    """Whoever stole a key that was replaced meanwhile, or may not use it from there, uses up nothing."""
    new = NewToken(
        digest=digest("near"),
        grants=(grant(HOST),),
        created_at=running.clock.now,
        allow_from=(ip_network("192.0.2.0/24"),),
    )
    token = await running.store.mint(new)
    before = running.clock.now - timedelta(seconds=2)
    rotated = await running.store.rotate(token.id, digest("new"), at=before, grace=timedelta(0))
    for _ in range(3):
        assert "REFUSED" == await two.send(key_of(token), add(MINE, VALUE))
        assert "REFUSED" == await two.send(key_of(rotated), add(MINE, VALUE), client="198.51.100.7")

    assert ["NOERROR"] * 2 == [await two.send(key_of(rotated), add(MINE, VALUE)) for _ in range(2)]


async def test_copies_do_not_count(two: Desk, key: Key) -> None:
    """Nobody uses up what a token is good for by repeating what its holder sent."""
    request = key.sign(message(add(MINE, VALUE)), two.now)
    assert ["NOERROR"] * 5 == [rcode(await two.ask(request)) for _ in range(5)]
    assert "NOERROR" == await two.send(key, delete(MINE, VALUE))


async def test_a_loop_does_not_flood_the_log(
    running: Control, two: Desk, logged: list[structlog.typing.EventDict]
) -> None:
    """It is told once in a while, and whose token it is; the metrics count each."""
    _, token = await running.mint(HOST)
    before = _limited()
    for _ in range(7):
        await two.send(key_of(token))

    told = [event for event in logged if "too many requests with this token" in event.get("reason", "")]
    assert [(str(token.id), "warning", 0)] == [(each["token"], each["log_level"], each["more"]) for each in told]
    assert 5 == _limited() - before


def _limited() -> float:
    labels = {"route": "UPDATE", "outcome": "too-many-requests"}
    return metrics.REGISTRY.get_sample_value("responder_requests_total", labels) or 0


# Replays


async def test_replay(running: Control, desk: Desk, key: Key) -> None:
    """An update that was overheard and is sent again, by either way, gets the answer of the first and does nothing."""
    request = key.sign(message(add(MINE, VALUE)), desk.now)
    assert "NOERROR" == rcode(await desk.ask(request))
    assert "NOERROR" == await desk.send(key, delete(MINE, VALUE))

    running.clock.now += timedelta(seconds=FUDGE)  # the last moment at which its signature is good
    for transport in Transport:
        reply = await desk.start(request, client="198.51.100.7", transport=transport)

        assert "NOERROR" == rcode(reply)
        verify(reply, request, key, desk.now)
        assert set() == running.values(HOST)


async def test_retransmission(running: Control, desk: Desk, key: Key) -> None:
    """A client that asks again because it heard no answer gets it twice, from one update."""
    running.store.gate.clear()
    request = key.sign(message(add(MINE, VALUE)), desk.now)
    first, second = desk.start(request), desk.start(request)
    await until(lambda: running.store.batches)
    running.store.gate.set()

    assert ["NOERROR"] * 2 == [rcode(reply) for reply in await asyncio.gather(first, second)]
    assert 1 == sum(map(len, running.store.batches))


async def test_replay_of_what_was_refused(running: Control, desk: Desk, key: Key) -> None:
    """What was turned down is not done either when it comes again and would now be good."""
    request = key.sign(message(delete_all(MINE), prerequisites=[SET]), desk.now)
    assert "NXRRSET" == rcode(await desk.ask(request))
    assert "NOERROR" == await desk.send(key, add(MINE, VALUE))

    assert "NXRRSET" == rcode(await desk.ask(request))
    assert {VALUE} == running.values(HOST)


async def test_replay_after_the_fudge(running: Control, desk: Desk, key: Key) -> None:
    """Later than that the signature is no longer good, and the reply says so, signed, with the time here."""
    request = key.sign(message(add(MINE, VALUE)), desk.now)
    assert "NOERROR" == rcode(await desk.ask(request))
    signed_at = desk.now
    running.clock.now += timedelta(seconds=301)

    reply = await desk.ask(request)

    tsig = verify(reply, request, key, signed_at)
    assert ("NOTAUTH", 18, signed_at, desk.now.to_bytes(6, "big")) == (rcode(reply), tsig.error, tsig.time, tsig.other)


async def test_replay_of_what_was_forgotten(running: Control, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had to be forgotten is not done again, nor is anything that is as old."""
    monkeypatch.setattr(replays, "MAX_OF_KEY", 3)
    _, token = await running.mint(HOST)
    key = key_of(token)
    first = key.sign(message(add(MINE, VALUE)), desk.now)
    assert "NOERROR" == rcode(await desk.ask(first))
    assert "NOERROR" == await desk.send(key, delete(MINE, VALUE))
    for _ in range(3):
        running.clock.now += timedelta(seconds=1)
        assert "NOERROR" == await desk.send(key)

    reply = await desk.ask(first)

    assert ("NOTAUTH", 18) == (rcode(reply), tsig_of(reply, key).error)
    assert set() == running.values(HOST)


# Our own troubles


async def test_store_trouble(running: Control, desk: Desk, key: Key, logged: list[structlog.typing.EventDict]) -> None:
    """While the database is away there is SERVFAIL, signed; the reason is in the log, for us alone."""
    assert "NOERROR" == await desk.send(key, add(MINE, OTHER))
    with running.store.away():
        assert "SERVFAIL" == await desk.send(key, add(MINE, VALUE))
    (line,) = [event for event in logged if event["event"] == "update" and event["rcode"] == "SERVFAIL"]
    assert ("error", "cannot use the database") == (line["log_level"], str(line["reason"])[:23])

    assert "NOERROR" == await desk.send(key, add(MINE, VALUE))
    assert {VALUE, OTHER} == running.values(HOST)


async def test_a_fault(
    running: Control, desk: Desk, key: Key, monkeypatch: pytest.MonkeyPatch, logged: list[structlog.typing.EventDict]
) -> None:
    """A fault of ours costs one update its answer, which is SERVFAIL, and is reported once for many."""
    monkeypatch.setattr(running.store, "find_generation", lambda *_: 1 // 0)

    assert ["SERVFAIL"] * 3 == [await desk.send(key, add(MINE, VALUE)) for _ in range(3)]
    monkeypatch.setattr(desk.updates._signatures._keyring, "check", lambda *_: 1 // 0, raising=False)
    assert "SERVFAIL" == rcode(await desk.ask(key.sign(message(), desk.now)))
    assert "SERVFAIL" == rcode(await desk.ask(message()))

    assert 2 == sum(event["event"] == "an update caused an unhandled exception" for event in logged)


async def test_an_error_of_no_kind(running: Control, desk: Desk, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says nothing to DNS is SERVFAIL."""

    async def fail(*_: object) -> None:
        raise NotFound("there is no such thing")

    monkeypatch.setattr(running.challenges, "update", fail)

    assert "SERVFAIL" == await desk.send(key, add(MINE, VALUE))


async def test_malformed_signature(running: Control, desk: Desk, key: Key) -> None:
    """A signature that is none is FORMERR, and the reply has none."""
    request = key.sign(message(add(MINE, VALUE)), desk.now, size=9)

    zone_section = message()[12:]
    assert b"\x12\x34\xa8\1\0\1" + bytes(6) + zone_section == await desk.ask(request)


OPT = record(".", 41, 1232)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([add(MINE, VALUE)], None),
        ([add(THEIRS, VALUE)], (18, f"this token does not cover {THEIRS[:-1]}: it covers {HOST}")),
        ([add("example.org.", VALUE)], (0, f"example.org is not in {ZONE[:-1]}, the zone of the update")),
        ([record(MINE, 251, IN)], (0, "a change has a type that records cannot have")),
    ],
)
async def test_reasons(desk: Desk, key: Key, changes: list[bytes], reason: tuple[int, str] | None) -> None:
    """A client with EDNS is told why its update is refused, in a reply that is signed; other clients are not."""
    request = key.sign(message(*changes, additional=[OPT]), desk.now)
    reply = await desk.ask(request)

    assert 0 == verify(reply, request, key, desk.now).error
    assert ([reason] if reason else []) == reasons(reply)
    without = key.sign(message(*changes, ident=7), desk.now)
    assert b"\0\0\x29" not in await desk.ask(without)


def reasons(reply: bytes) -> list[tuple[int, str | None]]:
    """The extended errors in the OPT of *reply*, which must have one in front of its TSIG."""
    read = dns.message.from_wire(reply[:10] + b"\0\1" + reply[12:], ignore_trailing=True)
    assert 0 == read.edns
    return [(int(option.code), option.text) for option in read.options if isinstance(option, dns.edns.EDEOption)]


async def test_reason_without_a_database(running: Control, desk: Desk, key: Key) -> None:
    """When no change can be stored, clients are told so, and nothing about the database."""
    request = key.sign(message(add(MINE, VALUE), additional=[OPT]), desk.now)

    with running.store.away():
        assert [(14, "no update can be carried out at the moment: try again later")] == reasons(await desk.ask(request))


async def test_reason_that_is_long(desk: Desk, key: Key) -> None:
    """A reason is cut where it is too long for the reply, or goes: the signature has room in any case."""
    owner = ".".join(["x" * 60] * 3) + "." + ZONE
    for size in (512, 1232):
        request = key.sign(message(add(owner, VALUE), additional=[record(".", 41, size)], ident=size), desk.now)
        reply = await desk.ask(request)
        assert len(reply) <= size
        assert all(len(text or "") <= 200 for _, text in reasons(reply))


async def test_too_many_under_way(running: Control, desk: Desk, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many wait for the store at most; more get SERVFAIL at once."""
    monkeypatch.setattr(updates, "MAX_UNDER_WAY", 2)
    running.store.gate.clear()
    waiting = [desk.start(key.sign(message(add(MINE, str(n)), ident=n), desk.now)) for n in range(3)]

    assert "SERVFAIL" == rcode(await waiting[2])
    running.store.gate.set()
    assert ["NOERROR"] * 2 == [rcode(await reply) for reply in waiting[:2]]


async def test_stop(running: Control, desk: Desk, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates under way get to finish; what takes too long gets SERVFAIL, and so does whoever comes later."""
    running.store.gate.clear()
    good = desk.start(key.sign(message(add(MINE, VALUE), ident=1), desk.now))
    await until(lambda: running.store.batches)
    stopping = asyncio.create_task(desk.updates.stop())
    await asyncio.sleep(0)
    late = desk.start(key.sign(message(add(MINE, VALUE), ident=2), desk.now))
    assert "SERVFAIL" == rcode(await late)
    running.store.gate.set()
    await stopping
    assert "NOERROR" == rcode(await good)

    monkeypatch.setattr(updates, "DRAIN", 0.01)
    running.store.gate.clear()
    slow = Desk(running)
    given_up = slow.start(key.sign(message(add(MINE, OTHER), ident=3), desk.now))
    await until(lambda: len(running.store.batches) == 2)
    await slow.updates.stop()
    assert "SERVFAIL" == rcode(await given_up)


# What is told of them


async def test_log_and_audit(running: Control, desk: Desk, key: Key, logged: list[structlog.typing.EventDict]) -> None:
    """One line for each update, with all that an administrator may ask for and no secret; and the audit as usual."""
    await desk.send(key, delete_all(MINE), add(MINE, VALUE))
    await desk.send(key, add(THEIRS, VALUE))

    token_id, _ = _parts(key)
    common = {"event": "update", "log_level": "info", "token": str(token_id), "zone": ZONE[:-1], "transport": "udp"}
    serial = next(iter((await running.store.serials()).values()))
    done = {"rcode": "NOERROR", "serial": serial, "names": [MINE[:-1]], "presents": 1, "cleanups": 1}
    refused = {"rcode": "REFUSED", "reason": f"this token does not cover {THEIRS[:-1]}: it covers {HOST}"}
    assert [common | done | {"client": "192.0.2.7"}, common | refused | {"client": "192.0.2.7"}] == logged
    assert [("present", None)] == [(event.action.value, event.value) for event in await _refusals(running)]
    events = await running.store.audit(running.clock.now)
    assert [("present", VALUE)] == [
        (event.action.value, event.value) for event in events if (event.client, event.result.value) == (CLIENT, "done")
    ]


# What clients see


async def test_reply_octet_by_octet(desk: Desk, key: Key) -> None:
    """A header with id and opcode, the zone section as it came, and the TSIG; nothing else, and short."""
    zone = name("AcMe.example.com") + struct.pack("!HH", SOA, IN)
    request = key.sign(message(add(MINE, VALUE), zone=zone), desk.now)

    reply = await desk.ask(request)

    tsig = verify(reply, request, key, desk.now)
    assert bytes.fromhex("1234 a800 0001 0000 0000 0001") + zone == reply[: tsig.start]
    assert (0x1234, desk.now, 300, b"") == (tsig.ident, tsig.time, tsig.fudge, tsig.other)


async def test_longest_reply(running: Control, desk: Desk, key: Key) -> None:
    """No reply is longer than 512 octets, which is all that some clients make room for."""
    zone = name("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61) + struct.pack("!HH", SOA, IN)
    longest = Key(f"{'0' * 8}-0000-0000-0000-{'0' * 12}-999999999", b"", "hmac-sha512.")
    longest = Key(longest.name, tsig_secret(bytes(range(32)), longest.name), longest.algorithm)
    request = longest.sign(message(zone=zone), desk.now - 1000)

    reply = await desk.ask(request)

    assert 18 == tsig_of(reply, longest).error
    assert len(reply) <= 512


HOLDER = UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479")
SIGNED_AT = 1_700_000_000
MIEKG = {
    "present": (
        "ce27280000010000000100010461636d65076578616d706c6503636f6d00000600010f5f61636d652d6368616c6c656e"
        "676504736f6d650461636d65076578616d706c6503636f6d00001000010000003c002c2b4c4844684b336f4752766b69"
        "6566516e78374f4f637a5459355469635f785a3648634d4f635f676d746f4d2646343741433130422d353863632d3433"
        "37322d613536372d3065303262326333643437392d310000fa00ff00000000003d0b686d61632d736861323536000000"
        "6553f100012c00204b2900ef821d315b3ef4a8a29f005078ae400f8445738c7f8b4d6864250cb9ddce2700000000"
    ),
    "cleanup": (
        "0001280000010000000100010461636d65076578616d706c6503636f6d00000600010f5f61636d652d6368616c6c656e"
        "676504736f6d650461636d65076578616d706c6503636f6d00001000fe00000000002c2b4c4844684b336f4752766b69"
        "6566516e78374f4f637a5459355469635f785a3648634d4f635f676d746f4d2646343741433130422d353863632d3433"
        "37322d613536372d3065303262326333643437392d310000fa00ff00000000003d0b686d61632d736861323536000000"
        "6553f100012c00203d3a9750dd77f50c3e855b67e33ccb1c3d8199fb724d8427e20fc3f3d832bee4000100000000"
    ),
    "lego": (
        "0002280000010000000200010461636d65076578616d706c6503636f6d00000600010f5f61636d652d6368616c6c656e"
        "676504736f6d650461636d65076578616d706c6503636f6d00001000ff0000000000000f5f61636d652d6368616c6c65"
        "6e676504736f6d650461636d65076578616d706c6503636f6d00001000010000003c002c2b4c4844684b336f4752766b"
        "696566516e78374f4f637a5459355469635f785a3648634d4f635f676d746f4d2646343741433130422d353863632d34"
        "3337322d613536372d3065303262326333643437392d310000fa00ff00000000005d0b686d61632d7368613531320000"
        "006553f100012c004097fb9f973a98c3063a58265de5302545cf36684f967e70770b2c23ad591186f622d21dc5046504"
        "73d030ddb75c6c3c65b37cf70428dc60e52c08bd981839079c000200000000"
    ),
}
"""
What miekg/dns 1.1.67 makes, which cert-manager's rfc2136 solver and lego use, at `SIGNED_AT` and with the key of
`HOLDER`, its name partly in capitals. cert-manager's Present adds one TXT of TTL 60 and its CleanUp deletes that one,
without prerequisites, compression or EDNS; lego, and cert-manager before 1.2, delete the RRset before they add.
"""


async def test_miekg(running: Control, desk: Desk) -> None:
    """
    What cert-manager and lego send, octet by octet, and what they demand of the reply: the id, a MAC over the
    request's, a time within the fudge, NOERROR, and no more than the 512 octets that they make room for.
    """
    running.clock.now = datetime.fromtimestamp(SIGNED_AT, UTC)
    new = NewToken(id=HOLDER, digest=digest("x"), grants=(grant(HOST),), created_at=running.clock.now)
    token = await running.store.mint(new)
    mixed = key_of(token).name.replace("f47ac10b", "F47AC10B") + "."

    assert "NOERROR" == await desk.send(key_of(token), add(MINE, OTHER))
    for kind, algorithm, shown in (
        ("present", "hmac-sha256.", {VALUE, OTHER}),
        ("cleanup", "hmac-sha256.", {OTHER}),
        ("lego", "hmac-sha512.", {VALUE}),
    ):
        request, key = bytes.fromhex(MIEKG[kind]), Key(mixed, key_of(token).secret, algorithm)
        reply = await desk.ask(request)

        assert request[:2] == reply[:2]
        verify(reply, request, key, SIGNED_AT)
        assert "NOERROR" == rcode(reply)
        assert len(reply) <= 512
        assert shown == running.values(HOST)
    rebuilt = message(delete_all(MINE), add(MINE, VALUE), ident=2)
    assert bytes.fromhex(MIEKG["lego"]) == key.sign(rebuilt, SIGNED_AT), "the other tests send the same"


async def test_dnspython(running: Control, desk: Desk, key: Key) -> None:
    """certbot's plugin uses dnspython, which compresses names, and holds our replies for good, errors included."""
    theirs = dns.tsig.Key(key.name, key.secret)

    async def send(request: dns.update.UpdateMessage) -> dns.message.Message:
        request.use_tsig(theirs)
        reply = await desk.ask(request.to_wire())
        return dns.message.from_wire(reply, keyring={theirs.name: theirs}, request_mac=request.mac)

    adding, deleting, wrong = (dns.update.UpdateMessage(ZONE) for _ in range(3))
    adding.add(MINE, 120, "TXT", VALUE)
    deleting.delete(MINE, "TXT", VALUE)
    wrong.add(THEIRS, 120, "TXT", VALUE)
    for request, expected, shown in ((adding, 0, {VALUE}), (wrong, 5, {VALUE}), (deleting, 0, set())):
        reply = await send(request)

        assert request.is_response(reply)
        assert reply.had_tsig
        assert expected == reply.rcode()
        assert shown == running.values(HOST)


async def test_signed_query(desk: Desk, key: Key) -> None:
    """A query that is signed gets the draft of its answer back, signed; a forged one does not."""
    query = struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + name(ZONE) + struct.pack("!HH", SOA, IN)
    draft = b"\0\7\x84\0\0\1" + bytes(6) + query[12:]
    signed, forged = key.sign(query, desk.now), Key(key.name, bytes(32)).sign(query, desk.now)

    reply = await desk.start(signed, draft=draft)
    turned_down = await desk.start(forged, draft=draft)

    verify(reply, signed, key, desk.now)
    assert draft[:11] == reply[:11]
    assert reply.startswith(draft[12:], 12)
    assert ("NOTAUTH", 16) == (rcode(turned_down), tsig_of(turned_down, key).error)


def _parts(key: Key) -> tuple[UUID, int]:
    token_id, _, generation = key.name.rpartition("-")
    return UUID(token_id), int(generation)


async def _refusals(running: Control) -> list[AuditEvent]:
    """What is on record as refused, as soon as there is anything."""
    async with asyncio.timeout(PATIENCE):
        while True:
            events = await running.store.audit(running.clock.now)
            if refused := [event for event in events if event.result is AuditResult.REFUSED]:
                return refused


async def _pinned(running: Control) -> Token:
    new = NewToken(
        digest=digest("pinned"),
        grants=(grant(HOST),),
        created_at=running.clock.now,
        account_thumbprint="thumbprint",
    )
    return await running.store.mint(new)
