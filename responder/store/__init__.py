"""
The store: every transaction on the database, and the only place that knows SQL.

Its methods take and return domain types, never rows. Each method is one transaction: it is done completely and is on
disk, or nothing is done. A database that does not answer or cannot be used raises `StoreUnavailable`, with a text that
describes how to fix it; a schema that this program cannot use raises `StoreOutdated`. The rules for requests are not
here: see `responder.tokens` and `responder.challenges`.
"""

from responder.store.accounts import Account
from responder.store.audit import AuditAction, AuditEvent, AuditResult
from responder.store.batch import Applied
from responder.store.certificates import OwnCertificate
from responder.store.grants import UnservedZone
from responder.store.hints import Hint, Hints
from responder.store.journal import NameState
from responder.store.migration import SchemaState
from responder.store.nodes import Node, NodeReport, ServedZone
from responder.store.origin import Origin
from responder.store.pruning import AUDIT_KEPT
from responder.store.sealing import Sealer
from responder.store.statistics import Statistics
from responder.store.store import Store
from responder.store.tokens import NewToken
from responder.store.values import LiveValue
from responder.tokens.values import MAX_VALUES, Cleanup, Expect, Operation, Outcome, Present, Step, Update, names

__all__ = [
    "AUDIT_KEPT",
    "MAX_VALUES",
    "Account",
    "Applied",
    "AuditAction",
    "AuditEvent",
    "AuditResult",
    "Cleanup",
    "Expect",
    "Hint",
    "Hints",
    "LiveValue",
    "NameState",
    "NewToken",
    "Node",
    "NodeReport",
    "Operation",
    "Origin",
    "Outcome",
    "OwnCertificate",
    "Present",
    "SchemaState",
    "Sealer",
    "ServedZone",
    "Statistics",
    "Step",
    "Store",
    "UnservedZone",
    "Update",
    "names",
]
