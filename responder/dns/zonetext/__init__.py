"""
Zone text to RRsets and back (RFC 1035, section 5; RFC 3597 for types that have no text form here).

`words` takes text apart, `rdata` knows the types; here is what lines mean for each other, and what a zone may hold.
The only user of dnslib, which prints rdata and knows the types by name. Text is read here, because its parser
stops at the first fault, takes decimal escapes for octal, splits names at escaped dots, and takes `1:2:3` for an
address. Nothing here knows the settings, or what else a zone must hold.
"""

from responder.dns.zonetext.records import parse_records, print_rrset, rname, soa_rdata

__all__ = ["parse_records", "print_rrset", "rname", "soa_rdata"]
