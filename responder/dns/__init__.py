"""
DNS itself: records, messages, zones, and the reply to each packet. Pure: no I/O.

Start with `exchange`, which takes one packet and gives one reply or silence, and with `zone`, which knows the names
that exist and their answers. `zonetext` reads and prints zone text, `wire` reads and writes messages, `rrset` has the
records. `cookies`, `ratelimit`, `counts`, `identity` and `reasons` each serve one purpose of the exchange.
"""
