"""
The other running services on one database, as this one sees them: who is live, what each of them serves.

`membership` renews the lease of this node and reads about the others; `confirmation` waits until all of them serve a
change. Nothing here changes values, and nothing here knows HTTP or DNS.
"""

from responder.nodes.confirmation import Confirmation
from responder.nodes.membership import Membership

__all__ = ["Confirmation", "Membership"]
