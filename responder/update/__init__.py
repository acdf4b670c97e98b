"""
DNS updates (RFC 2136): what comes over the DNS port, signed by the holder of a token, becomes presents and cleanups.

Nameserver processes pass the packets on, for the keys are here. A signature that does not hold is turned down on the
spot; only then is anything looked up, and the message read. `tsig` checks and signs, `message` reads, `steps` says what
it comes to, `replays` keeps it from happening twice.
"""

from responder.update.tsig import Keyring
from responder.update.updates import Updates

__all__ = ["Keyring", "Updates"]
