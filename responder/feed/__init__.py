"""
Zone changes from the control process to the nameserver processes, and their acknowledgements back.

Each nameserver has a Unix socket of its own to the control process, which the supervisor makes and hands over to both.
It is sent a snapshot (`Begin`, changes that carry all names, `End`) and then each change as it is committed; it
acknowledges every frame by its number. What DNS shows anyway travels here, and the keys of DNS cookies. The other way
go the packets that only the control process can answer, and their replies come back.

The promise kept here: when `Publisher.publish` returns, no nameserver process answers from before the change.
"""

from responder.feed.follower import Feeds, follow
from responder.feed.frames import Begin, End, Frame, Keys, Packet, Reply, Sandbox, parse_frame, render_frame
from responder.feed.publisher import Publisher
from responder.feed.relay import Deliver, Relay, fail

__all__ = [
    "Begin",
    "Deliver",
    "End",
    "Feeds",
    "Frame",
    "Keys",
    "Packet",
    "Publisher",
    "Relay",
    "Reply",
    "Sandbox",
    "fail",
    "follow",
    "parse_frame",
    "render_frame",
]
