"""
A nameserver process: packets from its sockets through `exchange` and back, and zones from the feed.

It faces the internet, so it is given sockets and the feed, and has nothing else: no database, no tokens, no
configuration, no environment. Between a packet and its answer nothing is awaited.
"""
