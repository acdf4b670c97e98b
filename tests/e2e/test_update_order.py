"""DNS updates that are sent one after the other without waiting: they take effect in that order, by every transport."""

from __future__ import annotations

import random
from collections.abc import Sequence

import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from .dns_client import values
from .service import ZONE, Responder, Token
from .updates import Key, key_of, send_at_once

pytestmark = pytest.mark.e2e

PAIRS = 15
"""Before each key had its order, more than one in six of these ended wrong."""

ROUNDS, PIPELINED = 10, 24
"""How often so many updates are on their way at once: all together fewer than are passed on in a second."""


def _update(token: Token, key: Key, step: str, value: str) -> dns.update.UpdateMessage:
    message = dns.update.UpdateMessage(ZONE, keyring=dns.tsig.Key(key.name, key.secret))
    if step == "add":
        message.add(f"{token.challenge_name}.", 60, "TXT", value)
    else:
        message.delete(f"{token.challenge_name}.", "TXT", value)
    return message


def _send_at_once(port: int, messages: Sequence[dns.update.UpdateMessage], transport: str) -> set[dns.rcode.Rcode]:
    """Send *messages* without waiting, and read all replies; their signatures hold."""
    asked = dict(enumerate(messages))
    for number, message in asked.items():
        message.id = number  # two of these messages may get the same random ID
    replies = send_at_once(port, [message.to_wire() for message in messages], transport)
    return {_rcode(reply, asked) for reply in replies}


def _rcode(octets: bytes, asked: dict[int, dns.update.UpdateMessage]) -> dns.rcode.Rcode:
    """The rcode of the signed reply to one of those that were *asked*, and not yet answered."""
    message = asked.pop(int.from_bytes(octets[:2], "big"))
    reply = dns.message.from_wire(octets, keyring=message.keyring, request_mac=message.mac)
    assert reply.had_tsig
    return reply.rcode()


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_add_and_delete(service: Responder, transport: str) -> None:
    """A value that is added and then deleted is gone, each time."""
    token = service.mint(f"pair-{transport.lower()}.example.com")
    key = key_of(service, token)
    left = []
    for number in range(PAIRS):
        value = f"{number:043}"
        pair = [_update(token, key, step, value) for step in ("add", "delete")]
        assert {dns.rcode.NOERROR} == _send_at_once(service.dns, pair, transport)
        left.append(values(service.dns, token.challenge_name))
    assert [set()] * PAIRS == left


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_many_at_once(service: Responder, transport: str) -> None:
    """What stands at the end of many updates on their way at once is what the last of each value says."""
    token = service.mint(f"many-{transport.lower()}.example.com")
    key = key_of(service, token)
    chance = random.Random(transport)
    expected: set[str] = set()
    for _ in range(ROUNDS):
        steps = [(chance.choice(["add", "delete"]), chance.choice("abcd") * 43) for _ in range(PIPELINED)]
        for step, value in steps:
            (expected.add if step == "add" else expected.discard)(value)
        messages = [_update(token, key, step, value) for step, value in steps]
        assert {dns.rcode.NOERROR} == _send_at_once(service.dns, messages, transport)
        assert expected == values(service.dns, token.challenge_name)
