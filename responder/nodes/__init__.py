"""
The running services on one database: which of them are live, and which serials each of them serves.

`nodes` is what the rest of the program uses. `membership` renews the lease of this node and reads the reports of the
others. `confirmation` waits until all of them serve a change. `staleness` decides whether this node may still answer
for its values. `wiring` builds them from the settings. Nothing here changes values or uses HTTP.
"""

from responder.nodes.confirmation import Confirmation
from responder.nodes.membership import Membership, Myself
from responder.nodes.nodes import Nodes

__all__ = ["Confirmation", "Membership", "Myself", "Nodes"]
