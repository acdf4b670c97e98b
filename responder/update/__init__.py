"""
DNS updates (RFC 2136): messages to the DNS port that the holder of a token signs become presents and cleanups.

Nameserver processes pass on the packets, because only this process has the keys. It rejects a bad signature before it
looks anything up or reads the message. `tsig` makes and checks signatures, `signatures` replies to messages with a bad
signature, `message` reads updates, `steps` turns an update into steps of the store, and `replays` prevents that an
update is carried out twice.
"""

from responder.update.signatures import Signatures
from responder.update.tsig import Keyring
from responder.update.updates import Updates

__all__ = ["Keyring", "Signatures", "Updates"]
