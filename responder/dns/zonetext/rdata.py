"""
Types and rdata: words are read to octets and printed from them, in the form of each type or that of RFC 3597, section
5.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from dnslib.dns import QTYPE, RDMAP, DNSError
from dnslib.label import DNSBuffer

from responder.dns.rrset import RRType
from responder.dns.zonetext.words import entries, escape, parse_name, refuse, unescape
from responder.errors import Invalid
from responder.names import Name

_FORMS = {
    "A": ("IPV4", "192.0.2.1"),
    "NS": ("NAME", "ns1.example.net."),
    "CNAME": ("NAME", "www.example.net."),
    "SOA": (
        "NAME NAME U32 U32 U32 U32 U32",
        "ns1.example.net. hostmaster.example.net. 1 14400 3600 1209600 5",
    ),
    "PTR": ("NAME", "www.example.net."),
    "MX": ("U16 NAME", "10 mail.example.net."),
    "TXT": ("TEXT...", '"some text"'),
    "AAAA": ("IPV6", "2001:db8::1"),
    "SRV": ("U16 U16 U16 NAME", "0 0 443 www.example.net."),
    "SSHFP": ("U8 U8 HEX...", "4 2 123456789abcdef0"),
    "TLSA": ("U8 U8 U8 HEX...", "3 1 1 123456789abcdef0"),
    "CAA": ("U8 TAG OCTETS", '0 issue "example.net"'),
}
"""The types with a text form here: their fields in order, and an example for error texts."""

_NAMES = {int(QTYPE.reverse[name]): name for name in _FORMS}
_ROOT = Name(b"\0")


def parse_type(word: str) -> int:
    """The number of the type that *word* names, also as TYPEn. Raises `InvalidZone`."""
    name = word.upper()
    match = re.fullmatch(r"TYPE(\d{1,5})", name)  # RFC 3597, section 5
    number = int(match[1] if match else QTYPE.reverse.get(name, 0))
    if not 0 < number <= 0xFFFF:
        refuse(f"{word[:40]!r} is not a record type: write OWNER [TTL] [IN] TYPE DATA")
    return number


def type_text(rrtype: int) -> str:
    """The name of a type with a text form here, or TYPEn for any other."""
    return _NAMES.get(rrtype) or f"TYPE{rrtype}"


def read_rdata(rrtype: int, words: list[str], origin: Name) -> bytes:
    """Rdata from its *words*, in the form of its type or in that of RFC 3597, section 5. Raises `Invalid`."""
    if words[:1] == [r"\#"]:
        return _read_generic(rrtype, words[1:])
    if rrtype not in _NAMES:
        refuse(rf"this type has no text form here: write TYPE{rrtype} \# LENGTH HEX (RFC 3597)")
    name = _NAMES[rrtype]
    form, example = _FORMS[name]
    kinds = form.split()
    if kinds[-1].endswith("..."):
        kinds += kinds[-1:] * (len(words) - len(kinds))
    if len(words) != len(kinds):
        refuse(f"{name} does not take {len(words)} fields: write it like {name} {example}")
    try:
        return b"".join(_read_field(kind, word, origin) for kind, word in zip(kinds, words, strict=True))
    except (ValueError, OverflowError):
        refuse(f"the data of this {name} is malformed: write it like {name} {example}")


def _read_generic(rrtype: int, words: list[str]) -> bytes:
    try:
        length, rdata = int(words[0]), bytes.fromhex("".join(words[1:]))
    except (IndexError, ValueError):
        refuse(r"data of any type is written \# LENGTH HEX (RFC 3597)")
    if length != len(rdata):
        refuse(f"{length} octets of data are announced, but {len(rdata)} follow")
    name = _NAMES.get(rrtype)
    if name and print_rdata(rrtype, rdata).startswith(r"\#"):
        refuse(f"these octets are not the data of this type: write it like {name} {_FORMS[name][1]}")
    return rdata


def _read_field(kind: str, word: str, origin: Name) -> bytes:
    """One field of rdata. Raises `Invalid`, or else `ValueError` or `OverflowError`."""
    match kind:
        case "NAME":
            return parse_name(word, origin).wire
        case "IPV4":
            return IPv4Address(word).packed
        case "IPV6":
            return IPv6Address(word.replace("%", "no scope here")).packed
        case "HEX...":
            return bytes.fromhex(word)
        case "OCTETS":
            return unescape(word)
        case "TEXT...":  # longer text takes several character-strings (RFC 1035, section 3.3.14)
            octets = unescape(word)
            return b"".join(_counted(octets[at : at + 255]) for at in range(0, len(octets) or 1, 255))
        case "TAG":
            return _counted(word.lower().encode() if word.isalnum() else bytes(256))  # RFC 8659, section 4.1
        case _:
            return int(word if word.isdigit() else "").to_bytes(int(kind[1:]) // 8, "big")


def _counted(octets: bytes) -> bytes:
    """A character-string: its length in one octet, and its octets. Raises `ValueError` if there are over 255."""
    return bytes((len(octets),)) + octets


def print_rdata(rrtype: int, rdata: bytes) -> str:
    """Rdata in the form of its type if that reads back as the same octets, else as RFC 3597, section 5."""
    try:
        text = _print_known(rrtype, rdata)
        [(_, words)] = entries(text)
        if read_rdata(rrtype, words, _ROOT) == rdata:
            return text
    except (DNSError, ValueError, Invalid, LookupError):
        pass  # the octets are invalid for the type, or the type has no text form here
    return rf"\# {len(rdata)} {rdata.hex()}".rstrip()


def _print_known(rrtype: int, rdata: bytes) -> str:
    """Rdata as dnslib prints it, except for names and strings, in which dnslib leaves out escapes."""
    form, _ = _FORMS[_NAMES[rrtype]]
    if form in ("NAME", "U16 NAME", "U16 U16 U16 NAME"):
        at = 2 * form.count("U16")
        numbers = (str(int.from_bytes(rdata[start : start + 2], "big")) for start in range(0, at, 2))
        return " ".join([*numbers, Name(rdata[at:]).fqdn])
    if rrtype == RRType.CAA:
        value = 2 + rdata[1]
        return f'{rdata[0]} {rdata[2:value].decode()} "{escape(rdata[value:])}"'
    record: Any = RDMAP[_NAMES[rrtype]].parse(DNSBuffer(rdata), len(rdata))
    match rrtype:
        case RRType.TXT:
            return " ".join(f'"{escape(string)}"' for string in record.data)
        case RRType.SOA:
            names = [Name.from_labels(list(label.label)).fqdn for label in (record.mname, record.rname)]
            return " ".join([*names, *map(str, record.times)])
        case _:
            return str(record.toZone())
