"""
The connections of an HTTP listener: how many there may be, which one is closed for a new one, how long each may wait
for its client, and the response to octets that are not HTTP. aiohttp limits none of this.

`runner` puts the parts together: `listener` accepts connections, `places` decides which ones may stay, `connection`
serves one connection, `proxyprotocol` reads for which client a proxy connects, and `closings` counts those that were
closed.
"""

from responder.connections.connection import Fallback
from responder.connections.proxyprotocol import WITHOUT_CLIENT
from responder.connections.runner import Runner

__all__ = ["WITHOUT_CLIENT", "Fallback", "Runner"]
