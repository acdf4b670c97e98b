"""
Zone text: it is read to RRsets and printed from them (RFC 1035, section 5; RFC 3597 for types without a text form
here).

`words` splits text into words, `rdata` knows the types, and `records` knows what lines mean and what a zone may hold.
Nothing here knows the settings, or which records a zone must have.

This is the only package that uses dnslib, which prints rdata and has the names of the types. The parser of dnslib is
not used: it stops at the first fault, reads decimal escapes as octal, splits names at escaped dots, and accepts `1:2:3`
as an address.
"""

from responder.dns.zonetext.records import UNITS, parse_records, print_rrset, rname, soa_rdata

__all__ = ["UNITS", "parse_records", "print_rrset", "rname", "soa_rdata"]
