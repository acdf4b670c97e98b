"""
The other running services on one database, as this one sees them: which are live, and what each of them serves.

`nodes` is what the rest of the program uses; `membership` renews the lease of this node and reads about the others;
`confirmation` waits until all of them serve a change. Nothing here changes values, and nothing here knows HTTP or DNS.
"""

from responder.nodes.confirmation import Confirmation
from responder.nodes.membership import Membership, Myself
from responder.nodes.nodes import Nodes

__all__ = ["Confirmation", "Membership", "Myself", "Nodes"]
