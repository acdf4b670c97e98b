"""
What DNS is made of: records, messages, zones, and the answer to each packet. Pure: no I/O.

Read from the top: `exchange` turns one packet into one reply or silence; `zone` knows which names exist; `zonetext`
reads and prints zone text; `wire` reads and writes messages; `rrset` has the records. `cookies`, `ratelimit`, `counts`
and `identity` each serve one purpose of the exchange.
"""
