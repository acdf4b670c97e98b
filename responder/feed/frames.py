"""
The format of the feed. Each message is four octets with its length, and then JSON.

The control process sends frames, which are numbered. A nameserver sends a hello first, and then acknowledgements (the
number of a frame), counts, and packets that it passes on.
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from responder.dns.rrset import RRset
from responder.dns.wire import Transport
from responder.dns.zone import Change, Static
from responder.names import Name

MAX_FRAME = 64 << 20
"""Octets of the longest frame. The publisher sends much shorter ones, so only a broken peer reaches this."""

MAX_USER = 32
"""Characters in the name of a user: useradd(8) accepts no more."""

MAX_NUMBER = 1 << 63
"""The number of a packet is below this. JSON allows longer numbers, which would be repeated in each reply."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """
    What a nameserver has given up.

    *landlock* is the version of Landlock (0: none), *seccomp* is whether system calls are filtered, and *user* is the
    name of the user that only nameservers run as ("": they run as the user of the service).
    """

    landlock: int = 0
    seccomp: bool = False
    user: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether Landlock and seccomp are active. The user depends on how the service was started."""
        return self.landlock > 0 and self.seccomp

    def __str__(self) -> str:
        landlock = f"Landlock {self.landlock}" if self.landlock else "no Landlock"
        seccomp = "seccomp" if self.seccomp else "no seccomp"
        user = f"user {self.user}" if self.user else "no user of its own"
        return f"{landlock}, {seccomp}, {user}"


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a nameserver: whether it has zones, so that it may be answering, and its sandbox."""

    loaded: bool
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Begin:
    """A snapshot follows: apply the next changes to new zones, and serve the old ones meanwhile."""

    statics: tuple[Static, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The snapshot is complete: serve the new zones from now on."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of DNS cookies from now on: the current one first, then older ones. No key: give no cookies."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A frame without content. A nameserver that does not acknowledge it hangs."""


@dataclass(frozen=True, slots=True)
class Vouch:
    """
    Values and grants are current *until* that time, in seconds of the monotonic clock, which all processes of a machine
    share. A nameserver that never got this frame treats them as current for ever.
    """

    until: float


@dataclass(frozen=True, slots=True)
class PacketReply:
    """The reply to the packet that this nameserver passed on with that number."""

    packet: int
    octets: bytes


Frame = Begin | Change | End | Keys | Check | Vouch | PacketReply


@dataclass(frozen=True, slots=True)
class Packet:
    """
    A message that a nameserver passes on, because only the control process can answer it.

    *draft* is the reply to a signed query without the signature; it is empty for an update.
    """

    octets: bytes
    transport: Transport
    client: str
    draft: bytes


def render_frame(number: int, frame: Frame) -> bytes:
    """The octets of a frame, its length first."""
    match frame:
        case Begin():
            body: object = {"zones": [_render_static(static) for static in frame.statics]}
        case Change():
            names = {name.wire.hex(): values for name, values in frame.names.items()}
            body = {
                "apex": str(frame.apex),
                "previous": frame.previous,
                "serial": frame.serial,
                "names": names,
            }
        case End() | Check():
            body = None
        case Keys():
            body = [key.hex() for key in frame.keys]
        case Vouch():
            body = frame.until
        case PacketReply():
            body = {"packet": frame.packet, "octets": frame.octets.hex()}
    return pack({"n": number, type(frame).__name__: body})


def parse_frame(message: dict[str, Any]) -> tuple[int, Frame]:
    """The number and the frame in a decoded message, which comes from the control process. Raises `ValueError`."""
    match message:
        case {"n": int(number), "Begin": {"zones": list(statics)}}:
            return number, Begin(tuple(map(_parse_static, statics)))
        case {
            "n": int(number),
            "Change": {"apex": apex, "previous": previous, "serial": serial, "names": names},
        }:
            values = {Name(bytes.fromhex(wire)): None if v is None else tuple(v) for wire, v in names.items()}
            return number, Change(apex=Name.parse(apex), previous=previous, serial=serial, names=values)
        case {"n": int(number), "End": None}:
            return number, End()
        case {"n": int(number), "Check": None}:
            return number, Check()
        case {"n": int(number), "Keys": list(keys)}:
            return number, Keys(tuple(map(bytes.fromhex, keys)))
        case {"n": int(number), "Vouch": float(until)}:
            return number, Vouch(until)
        case {"n": int(number), "PacketReply": {"packet": int(packet), "octets": str(octets)}}:
            return number, PacketReply(packet, bytes.fromhex(octets))
        case _:
            raise ValueError("not a feed frame")


def render_hello(hello: Hello) -> bytes:
    """The octets of the first message of a nameserver."""
    return pack(asdict(hello))


def parse_hello(message: dict[str, Any]) -> Hello:
    """The hello in a decoded message. Raises `ValueError`, because an attacker may control the nameserver."""
    match message:
        case {
            "loaded": bool(loaded),
            "sandbox": {"landlock": int(landlock), "seccomp": bool(seccomp), "user": str(user)},
        }:
            return Hello(loaded, Sandbox(landlock, seccomp, user[:MAX_USER]))
        case _:
            raise ValueError("not the greeting of a nameserver")


def render_packet(number: int, packet: Packet) -> bytes:
    """The octets of the message that passes on *packet*."""
    return pack(
        {
            "packet": number,
            "octets": packet.octets.hex(),
            "transport": packet.transport.value,
            "client": packet.client,
            "draft": packet.draft.hex(),
        }
    )


def parse_packet(message: dict[str, Any]) -> tuple[int, Packet]:
    """The number and the packet in a decoded message. Raises `ValueError`: an attacker may control the nameserver."""
    match message:
        case {
            "packet": int(number),
            "octets": str(octets),
            "transport": str(transport),
            "client": str(client),
            "draft": str(draft),
        }:
            if not 0 <= number < MAX_NUMBER:
                raise ValueError("not the number of a packet")
            address = str(ip_address(client.partition("%")[0]))  # an IPv6 zone may be any text; log and audit get none
            return number, Packet(bytes.fromhex(octets), Transport(transport), address, bytes.fromhex(draft))
        case _:
            raise ValueError("not a packet")


def _render_static(static: Static) -> dict[str, object]:
    rrsets = [(str(r.owner), r.type, r.ttl, [rdata.hex() for rdata in r.rdatas]) for r in static.rrsets]
    return {"apex": str(static.apex), "txt_ttl": static.txt_ttl, "rrsets": rrsets}


def _parse_static(data: dict[str, list[tuple[str, int, int, list[str]]]]) -> Static:
    rrsets = tuple(RRset(Name.parse(o), t, ttl, tuple(map(bytes.fromhex, d))) for o, t, ttl, d in data["rrsets"])
    return Static(apex=Name.parse(str(data["apex"])), rrsets=rrsets, txt_ttl=int(str(data["txt_ttl"])))


def pack(message: dict[str, object]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return struct.pack("!I", len(body)) + body


async def read(reader: asyncio.StreamReader, limit: int) -> dict[str, Any]:
    """The next message. Raises `asyncio.IncompleteReadError` at the end, and `ValueError` for an invalid message."""
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    if length > limit:
        raise ValueError("frame too long")
    octets = await reader.readexactly(length)
    try:
        message = json.loads(octets)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("not a feed message")
    return message
