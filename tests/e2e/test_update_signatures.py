"""Signed messages that are refused: the reply is signed, too, so that clients read the reason. What is no signature."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from tests.support.nameservers import new_source
from tests.support.processes import PATIENCE

from .dns_client import values
from .programs import wait_until
from .service import ZONE, Responder, Token
from .updates import Key, key_of, knsupdate, nsupdate, send_at_once

pytestmark = pytest.mark.e2e

ELSEWHERE = "example.org"
"""A zone that is not served."""

Ask = Callable[..., dns.message.Message]


@pytest.fixture(scope="module")
def token(service: Responder) -> Token:
    minted = service.mint("signed.example.com")
    wait_until(lambda: not values(service.dns, minted.challenge_name), "the challenge name exists")
    return minted


@pytest.fixture(scope="module")
def key(service: Responder, token: Token) -> Key:
    return key_of(service, token)


def _exchange(service: Responder, message: dns.message.Message, ask: Ask) -> dns.message.Message:
    return ask(message, "127.0.0.1", timeout=PATIENCE, port=service.dns, source=new_source())


def _messages(token: Token) -> dict[str, tuple[dns.message.Message, dns.rcode.Rcode]]:
    """Messages that are refused, and how."""
    elsewhere, below, record = (dns.update.UpdateMessage(zone) for zone in (ELSEWHERE, token.challenge_name, ZONE))
    for update in (elsewhere, below):
        update.add(update.zone[0].name, 60, "TXT", "x")
    record.add(f"{token.challenge_name}.", 60, "A", "192.0.2.1")
    notify = dns.message.make_query(ZONE, "SOA")
    notify.set_opcode(dns.opcode.NOTIFY)
    return {
        "update of a zone elsewhere": (elsewhere, dns.rcode.NOTAUTH),
        "update of a name that is no zone": (below, dns.rcode.NOTAUTH),
        "update that adds an address": (record, dns.rcode.REFUSED),
        "notify": (notify, dns.rcode.REFUSED),
        "query of a zone elsewhere": (dns.message.make_query(ELSEWHERE, "SOA"), dns.rcode.REFUSED),
        "transfer": (dns.message.make_query(ZONE, "AXFR"), dns.rcode.REFUSED),
    }


@pytest.mark.parametrize("ask", [dns.query.udp, dns.query.tcp], ids=["UDP", "TCP"])
def test_dnspython(service: Responder, token: Token, key: Key, ask: Ask, subtests: pytest.Subtests) -> None:
    """dnspython takes no reply to a signed message that is not signed: of these it reads the rcode."""
    for name, (message, expected) in _messages(token).items():
        with subtests.test(name):
            message.use_tsig(dns.tsig.Key(key.name, key.secret))
            reply = _exchange(service, message, ask)
            assert (True, expected) == (reply.had_tsig, reply.rcode())


def test_wrong_key(service: Responder, token: Token, key: Key) -> None:
    """A wrong key gets BADSIG, and is not told whether there is such a zone."""
    for zone in (ZONE, ELSEWHERE):
        update = dns.update.UpdateMessage(zone)
        update.use_tsig(dns.tsig.Key(key.name, "A" * 43 + "="))
        with pytest.raises(dns.tsig.PeerBadSignature):
            _exchange(service, update, dns.query.udp)


@pytest.mark.parametrize("client", [nsupdate, knsupdate])
@pytest.mark.parametrize("options", [(), ("-v",)], ids=["UDP", "TCP"])
def test_programs(
    service: Responder, key: Key, tmp_path: Path, client: Callable[..., object], options: tuple[str, ...]
) -> None:
    """BIND's and Knot's clients report NOTAUTH for a zone elsewhere, and no missing signature."""
    file = key.bind(tmp_path) if client is nsupdate else key.knot(tmp_path)
    lines = f"server 127.0.0.1 {service.dns}", f"zone {ELSEWHERE}.", f"update add x.{ELSEWHERE}. 60 TXT x", "send"
    output = str(getattr(client(file, *lines, "answer", options=options), "stdout"))  # noqa: B009

    assert "NOTAUTH" in output
    assert "TSIG error" not in output
    assert "expected a TSIG" not in output
    assert "failed to verify" not in output


def _tsig(signed: bytes) -> int:
    """Where the TSIG of dnspython begins, the key's name in front."""
    return signed.rindex(struct.pack("!HHI", 250, 255, 0))


def _with_ttl(signed: bytes) -> bytes:
    at = _tsig(signed)
    return signed[: at + 4] + struct.pack("!I", 1) + signed[at + 8 :]


def _of_class_in(signed: bytes) -> bytes:
    at = _tsig(signed)
    return signed[: at + 2] + struct.pack("!H", 1) + signed[at + 4 :]


def _not_last(signed: bytes) -> bytes:
    (count,) = struct.unpack_from("!H", signed, 10)
    behind = b"\0" + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4)
    return signed[:10] + struct.pack("!H", count + 1) + signed[12:] + behind


def _cut_short(signed: bytes) -> bytes:
    return signed[:-1]


def _mac_cut_short(signed: bytes) -> bytes:
    """The record ends before the MAC that it announces."""
    at = _tsig(signed) + 8
    (length,) = struct.unpack_from("!H", signed, at)
    return signed[:at] + struct.pack("!H", length - 20) + signed[at + 2 : -20]


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("damage", [_with_ttl, _of_class_in, _not_last, _cut_short, _mac_cut_short])
def test_malformed(
    service: Responder, token: Token, key: Key, transport: str, damage: Callable[[bytes], bytes]
) -> None:
    """A TSIG that is not as RFC 8945 has it is FORMERR, whatever message it is in; nothing is done."""
    query, update = dns.message.make_query(ZONE, "SOA"), dns.update.UpdateMessage(ZONE)
    update.add(f"{token.challenge_name}.", 60, "TXT", "x")
    for message in (query, update):
        message.use_tsig(dns.tsig.Key(key.name, key.secret))

        (reply,) = send_at_once(service.dns, [damage(message.to_wire())], transport)

        assert (message.id, dns.rcode.FORMERR) == (int.from_bytes(reply[:2], "big"), reply[3] & 0xF)
    assert set() == values(service.dns, token.challenge_name)
