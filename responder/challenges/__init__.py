"""
The one writer: presents, cleanups, updates and the end of values, shared transactions, and what follows a commit.

`challenges` carries the operations out. `queue` has those that wait, and how they become batches. `refusals` keeps the
requests that never became an operation until they are written to the audit. `recent` remembers what was published, so
that values which a restored database has lost can be named.
"""

from responder.challenges.challenges import Challenges, Pace
from responder.challenges.queue import UPDATE_PATIENCE, within

__all__ = ["UPDATE_PATIENCE", "Challenges", "Pace", "within"]
