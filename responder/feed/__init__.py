"""
The feed: zone changes from the control process to the nameserver processes, and their acknowledgements back.

Each nameserver has its own Unix socket to the control process. The supervisor makes it and gives one end to each of the
two. Only public DNS data travels on it, the keys of DNS cookies, and the packets that only the control process can
answer, with their replies.

`publisher` is the end of the control process, and `peer` is one nameserver as the publisher sees it. `follower` is the
end of a nameserver, and `relay` keeps the packets that it has passed on. `frames` has the format of the messages.

The feed keeps one promise: when `Publisher.publish` returns, no nameserver process answers from the state before the
change.
"""

from responder.feed.follower import Feeds, follow
from responder.feed.frames import Begin, End, Frame, Keys, Packet, PacketReply, Sandbox, parse_frame, render_frame
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
    "PacketReply",
    "Publisher",
    "Relay",
    "Sandbox",
    "fail",
    "follow",
    "parse_frame",
    "render_frame",
]
