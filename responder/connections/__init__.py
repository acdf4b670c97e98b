"""
The connections of an HTTP listener: how many there may be and who has to make room, how long each may wait for its
client, and what is answered to what is not HTTP. aiohttp bounds none of this by itself.

`runner` puts the rest together: `listener` accepts connections, `places` decides which may stay, `connection` serves
one, `closings` counts those that had to go.
"""

from responder.connections.connection import Fallback
from responder.connections.runner import Runner

__all__ = ["Fallback", "Runner"]
