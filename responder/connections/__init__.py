"""
The connections of an HTTP listener: how many there may be, how long they may dally, what is said to what is no request.

aiohttp bounds none of this by itself, and answers malformed HTTP with its parser's own words.
"""

from responder.connections.runner import Runner

__all__ = ["Runner"]
