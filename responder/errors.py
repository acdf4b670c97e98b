"""
Every exception this project raises on purpose, and how tables of them are read.

    ResponderError
    ├── Invalid                   the input itself is wrong
    │   ├── InvalidName             the input is not a domain name
    │   ├── InvalidHostname         no certificate token can be minted for the domain name
    │   ├── InvalidValue            the input is not a challenge value
    │   ├── InvalidRequest          the body of a request has faults
    │   ├── InvalidUpdate           a DNS update has faults
    │   ├── OutsideZone             a DNS update has a name outside its zone
    │   ├── InvalidZone             zone text or the settings of a zone have faults
    │   └── InvalidConfiguration    the settings have faults
    ├── Refused                   the input is correct, but this client may not do it
    │   ├── Unauthenticated         there is no token, or it is unknown, expired or revoked
    │   ├── NotCovered              the token has no grant for the name
    │   ├── WrongNetwork            the token may not be used from the address of the client
    │   ├── WrongAccount            the token is pinned to an ACME account, and the value is not proved to belong to it
    │   ├── NotServed               the name is in no zone that this service serves
    │   ├── TooManyValues           the name already holds the maximum number of values
    │   ├── NotAChallenge           what the client wants to publish is not a challenge value
    │   ├── PrerequisiteFailed      a DNS update expected other values than there are
    │   ├── NameTaken               another hostname already owns the challenge name
    │   ├── NodeNameTaken           another running service has the same node name
    │   ├── TooManyRequests         the client has reached a rate limit
    │   ├── Forbidden               Kubernetes does not allow the account to do it
    │   ├── RefusedByApi            the API of a responder refuses a request of the webhook
    │   └── CertificateRefused      a CA refuses to issue the certificate
    ├── NotFound                  the token, value, zone or node does not exist
    └── Unavailable               the fault is on our side, and the client can try again
        ├── StoreUnavailable        the database does not answer, or cannot be used
        │   └── StoreMoved              the database has gone back: a standby took over, or an older copy was restored
        ├── StoreOutdated           the database schema is not the one that this version needs
        ├── Unserved                the change is stored, but not served yet
        │   └── Unconfirmed             not every live node has confirmed the change yet
        ├── ClusterUnavailable      the Kubernetes API does not answer the webhook
        ├── ApiUnavailable          the API of a responder does not answer the webhook
        │   └── ApiBusy                 the API asks the webhook to wait
        ├── ApiUntrusted            the webhook does not trust the certificate of the API
        ├── AuthorityUnavailable    a CA does not answer, does not answer as a CA does, or asks to wait
        ├── CannotStart             a socket, file or process that the service needs is not available
        └── CannotExamine           no resolver answers the doctor in time

The text of an exception is for the person who has to fix the fault. It is stable: it has no times, ids or ports of
ours, because clients such as cert-manager retry at once whenever the text changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class ResponderError(Exception):
    """The base of all errors of this project. It is never raised itself."""


class Invalid(ResponderError):
    """The input itself is wrong; it does not matter which client sent it."""


class InvalidName(Invalid):
    """The text or octets are not a domain name (RFC 1035, section 2.3.4)."""


class InvalidHostname(Invalid):
    """The input is a domain name, but no certificate token can be minted for it."""


class InvalidValue(Invalid):
    """The input is not a challenge value: a value is printable ASCII of 1 to 255 characters."""


class _Faults(Invalid):
    """Several faults, which are reported together so that a person can fix all of them at once."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class InvalidRequest(_Faults):
    """The body of a request is malformed; *faults* names everything that is wrong with it."""


class InvalidUpdate(Invalid):
    """A DNS update is malformed, or its records contradict each other (RFC 2136, sections 3.2 and 3.4.1)."""


class OutsideZone(Invalid):
    """A DNS update has a name that is not in the zone of the update."""


class InvalidZone(_Faults):
    """The settings or zone text of one zone are malformed."""


class InvalidConfiguration(_Faults):
    """The settings are malformed; *faults* names everything that is wrong with them. They are in *file*, if not ""."""

    def __init__(self, faults: Iterable[str], file: str = "") -> None:
        super().__init__(faults)
        self.file = file


class Refused(ResponderError):
    """The input is correct, but this client may not do it."""


class Unauthenticated(Refused):
    """There is no token, or it is unknown, expired or revoked. *reason* is for the log, and may have more details."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        self.reason = reason or text
        super().__init__(text)


class NotCovered(Refused):
    """The token is valid, but none of its grants covers the name."""


class WrongNetwork(Refused):
    """The token is valid, but it may not be used from the address of the client."""


class WrongAccount(Refused):
    """The token is pinned to an ACME account, and nothing proves that the value is for that account."""


class NotServed(Refused):
    """The token covers the name, but DNS would not show a value there: its zone is not served, or a CNAME hides it."""


class TooManyValues(Refused):
    """The challenge name already holds the maximum number of values."""


class NotAChallenge(Refused):
    """
    What the client wants to publish is not a challenge value. Its type is not TXT, its text is not allowed, or its text
    is not a digest and the name belongs to an account that a client registered itself.
    """


class PrerequisiteFailed(Refused):
    """A DNS update expected other values than there are. The reply has this *rcode* (RFC 2136, section 3.2)."""

    def __init__(self, text: str, rcode: int) -> None:
        self.rcode = rcode
        super().__init__(text)


class NameTaken(Refused):
    """Another hostname already owns the challenge name."""


class NodeNameTaken(Refused):
    """Another running service on the same database has the same node name."""


class TooManyRequests(Refused):
    """The client has reached a rate limit. It may try again after *retry_after* seconds."""

    def __init__(self, text: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class Forbidden(Refused):
    """Kubernetes does not allow it to the account that calls the webhook, or to the account of the webhook."""


class RefusedByApi(Refused):
    """The API of a responder refused a request; *kind* is the last part of the type in its problem document."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


class CertificateRefused(Refused):
    """
    A CA refuses to issue the certificate. *retry_after* is the number of seconds after which the CA wants the next
    attempt, if it names one. *hostname* is the hostname that the CA could not verify, if that is the reason.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, hostname: str | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.hostname = hostname


class NotFound(ResponderError):
    """The token, value, zone or node does not exist."""


class Unavailable(ResponderError):
    """The service cannot do it now. The client can try again later."""


class StoreUnavailable(Unavailable):
    """The database does not answer, or cannot be used."""


class StoreMoved(StoreUnavailable):
    """
    The database may lack what it had before: a standby server has taken over, or an older copy was restored.

    It can be used again when what is published follows it (see `Store.resume`).
    """


class StoreOutdated(Unavailable):
    """The database schema is older or newer than the one that this version of the program needs."""


class Unserved(Unavailable):
    """The change is stored, but no nameserver serves it yet. The client can send the same request again."""


class Unconfirmed(Unserved):
    """The change is stored, but *nodes* did not confirm in time that they serve it."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = tuple(nodes)
        super().__init__("it is stored, but not every node serves it yet: try again in a few seconds")


class ClusterUnavailable(Unavailable):
    """The Kubernetes API does not answer, or its answer is invalid."""


class ApiUnavailable(Unavailable):
    """The API of a responder does not answer, or reports that it cannot do this now."""


class ApiBusy(ApiUnavailable):
    """The API of a responder accepts no more requests for now. An immediate retry adds to its load."""


class ApiUntrusted(Unavailable):
    """The server at the URL of a responder's API has a certificate that the webhook does not trust."""


class AuthorityUnavailable(Unavailable):
    """
    A CA does not answer, or does not answer as a CA does. *retry_after* is the number of seconds after which the CA
    wants the next attempt, if it names one.
    """

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class CannotStart(Unavailable):
    """A socket, directory or child process that the service needs is not available."""


class CannotExamine(Unavailable):
    """No resolver answers, or the examination takes too long."""


def faults_of(error: ResponderError) -> tuple[str, ...]:
    """Return the faults that *error* reports, one text for each."""
    return error.faults if isinstance(error, _Faults) else (str(error),)


def by_ancestry(error: ResponderError, table: Mapping[type[ResponderError], T]) -> T:
    """Return the entry of *table* for the class of *error* or its nearest base class; there must be one."""
    return next(table[ancestor] for ancestor in type(error).__mro__ if ancestor in table)
