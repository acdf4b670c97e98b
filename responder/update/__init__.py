"""
DNS updates (RFC 2136): what comes over the DNS port, signed by the holder of a token, becomes presents and cleanups.

Nameserver processes pass the packets on, for the keys are here. A signature that does not hold is rejected at once;
only then is anything looked up, and the message read. `tsig` makes and checks signatures, `signatures` answers what is
not signed as it should be, `message` reads updates, `steps` are what they come to, and `replays` prevents that one is
carried out twice.
"""

from responder.update.signatures import Signatures
from responder.update.tsig import Keyring
from responder.update.updates import Updates

__all__ = ["Keyring", "Signatures", "Updates"]
