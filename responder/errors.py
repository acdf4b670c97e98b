"""
Every exception this project raises on purpose, and how tables of them are read.

    ResponderError
    ├── Invalid                   what you sent makes no sense
    │   ├── InvalidName             not a domain name
    │   ├── InvalidHostname         a domain name no certificate token may be minted for
    │   ├── InvalidValue            not a challenge value
    │   ├── InvalidRequest          a request body with faults
    │   ├── InvalidUpdate           a DNS update with faults
    │   ├── OutsideZone             a DNS update of a name outside the zone that it is about
    │   ├── InvalidZone             zone text or zone settings with faults
    │   └── InvalidConfiguration    settings with faults
    ├── Refused                   what you sent makes sense, and you may not
    │   ├── Unauthenticated         no token, or one that is unknown, expired or revoked
    │   ├── NotCovered              the token has no grant for that name
    │   ├── WrongNetwork            the token may not be used from that address
    │   ├── WrongAccount            the token is pinned to an ACME account, and this is not shown to be its value
    │   ├── NotServed               the name is in no zone that is served here
    │   ├── TooManyValues           the name holds as many values as it may
    │   ├── NotAChallenge           what would be published is no challenge value
    │   ├── PrerequisiteFailed      a DNS update expected other values than there are
    │   ├── NameTaken               another hostname already owns that challenge name
    │   ├── NodeNameTaken           another running service has that name of a node
    │   ├── TooManyRequests         more than one client may ask, for now
    │   ├── Forbidden               Kubernetes does not let that account do it
    │   ├── RefusedByApi            the API of a responder refuses what the webhook asks of it
    │   └── CertificateRefused      a CA does not issue the certificate
    ├── NotFound                  there is no such thing
    └── Unavailable               our fault, try again
        ├── StoreUnavailable        the database does not answer, or cannot be used
        ├── StoreOutdated           the database schema is not the one this version needs
        ├── Unserved                what was asked for is stored, but not being served yet
        │   └── Unconfirmed             it is not confirmed yet by every node that may be asked
        ├── ClusterUnavailable      the Kubernetes API does not answer the webhook
        ├── ApiUnavailable          the API of a responder does not answer the webhook
        │   └── ApiBusy                 it does, and asks for patience
        ├── ApiUntrusted            it does, with a certificate that the webhook does not trust
        ├── AuthorityUnavailable    a CA does not answer, not as a CA does, or asks to come again later
        ├── CannotStart             a socket, file or process that the service needs cannot be had
        └── CannotExamine           no resolver answers the doctor, or not in time

The text of an exception is for the person who has to mend it. It is stable: no times, ids or ports of ours in it,
because clients such as cert-manager retry at once whenever the text changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class ResponderError(Exception):
    """Never raised itself: catch it to catch everything below."""


class Invalid(ResponderError):
    """What was sent makes no sense, whoever sent it."""


class InvalidName(Invalid):
    """The text or bytes are not a domain name (RFC 1035, section 2.3.4)."""


class InvalidHostname(Invalid):
    """A domain name, but not one that a certificate token can be minted for."""


class InvalidValue(Invalid):
    """Not a challenge value: printable ASCII of 1 to 255 characters."""


class _Faults(Invalid):
    """Several faults, reported together so that one round of mending is enough."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class InvalidRequest(_Faults):
    """The body of a request is malformed; *faults* names everything that is wrong with it."""


class InvalidUpdate(Invalid):
    """A DNS update is malformed, or asks for what makes no sense (RFC 2136, sections 3.2 and 3.4.1)."""


class OutsideZone(Invalid):
    """A DNS update names something that is not in its zone."""


class InvalidZone(_Faults):
    """The settings or zone text of one zone are malformed."""


class InvalidConfiguration(_Faults):
    """The settings are malformed; *faults* names everything that is wrong with them."""


class Refused(ResponderError):
    """What was sent makes sense, but this caller may not do it."""


class Unauthenticated(Refused):
    """There is no token, or it is unknown, expired or revoked. *reason* is for the log, where it may say more."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        self.reason = reason or text
        super().__init__(text)


class NotCovered(Refused):
    """The token is good, but none of its grants covers the name."""


class WrongNetwork(Refused):
    """The token is good, but it may not be used from the caller's address."""


class WrongAccount(Refused):
    """The token is pinned to an ACME account, and nothing shows that the value is for that account."""


class NotServed(Refused):
    """The token covers the name, but DNS would not show a value there: its zone or a CNAME is in the way."""


class TooManyValues(Refused):
    """The challenge name already holds as many values as it may."""


class NotAChallenge(Refused):
    """
    What would be published is no challenge value: another type than TXT, text that may not be one, or any text but a
    digest at the name of an account that a client registered itself.
    """


class PrerequisiteFailed(Refused):
    """A DNS update expected other values than there are; *rcode* is the answer to that (RFC 2136, section 3.2)."""

    def __init__(self, text: str, rcode: int) -> None:
        self.rcode = rcode
        super().__init__(text)


class NameTaken(Refused):
    """Another hostname already owns the challenge name."""


class NodeNameTaken(Refused):
    """Another running service on the same database has that name."""


class TooManyRequests(Refused):
    """The client asks more often than one may; *retry_after* is the whole seconds until it may again."""

    def __init__(self, text: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class Forbidden(Refused):
    """Kubernetes' own rules do not let the account do it: the one that calls the webhook, or the webhook's."""


class RefusedByApi(Refused):
    """The API of a responder said no; *kind* is the end of its problem document's type."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


class CertificateRefused(Refused):
    """
    A CA does not issue the certificate. *retry_after* is in how many seconds it says to come again, if it does;
    *hostname* the one that it does not believe in, if that is why.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, hostname: str | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.hostname = hostname


class NotFound(ResponderError):
    """There is no token, value or zone of that description."""


class Unavailable(ResponderError):
    """We cannot do it now. Nothing was changed; trying again later may succeed."""


class StoreUnavailable(Unavailable):
    """The database does not answer, or is no database of ours."""


class StoreOutdated(Unavailable):
    """The database schema is older or newer than this version of the program needs."""


class Unserved(Unavailable):
    """What was asked for is stored, but no nameserver serves it yet. Asking again does no harm."""


class Unconfirmed(Unserved):
    """What was asked for is stored, but *nodes* did not confirm in time that they serve it."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = tuple(nodes)
        super().__init__("it is stored, but not every node serves it yet: try again in a few seconds")


class ClusterUnavailable(Unavailable):
    """The Kubernetes API does not answer, or makes no sense."""


class ApiUnavailable(Unavailable):
    """The API of a responder does not answer, or says that it cannot do this now."""


class ApiBusy(ApiUnavailable):
    """The API of a responder takes no more requests for now: asking again at once makes it worse."""


class ApiUntrusted(Unavailable):
    """Whatever answers for the API of a responder cannot prove that it is one."""


class AuthorityUnavailable(Unavailable):
    """A CA does not answer, or not as a CA does. *retry_after* is in how many seconds to come again, if it says so."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class CannotStart(Unavailable):
    """A socket, directory or child process that the service needs cannot be had."""


class CannotExamine(Unavailable):
    """No resolver answers, or the examination takes too long."""


def faults_of(error: ResponderError) -> tuple[str, ...]:
    """Everything that *error* names, each a line of its own."""
    return error.faults if isinstance(error, _Faults) else (str(error),)


def by_ancestry(error: ResponderError, table: Mapping[type[ResponderError], T]) -> T:
    """What *table* has for the nearest class of the error's ancestry. Every kind of error has to have one in it."""
    return next(table[ancestor] for ancestor in type(error).__mro__ if ancestor in table)
