"""Steps with a CA: what is sent, what is believed, and what is said when it answers as CAs do on bad days."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from responder.certificate import accountkey, authority, network
from responder.certificate.authority import Authority, Binding, certificate_id
from responder.errors import AuthorityUnavailable, CertificateRefused, Invalid, ResponderError
from responder.tls.keypair import KeyPair, key_pem, new_key
from tests.support.authorities import HTML, HTML_OK, Answer, Front, fronting, problem
from tests.support.keypairs import key_pair
from tests.support.processes import eventually

NONCE = {"Replay-Nonce": "bm9uY2U"}
KEY = accountkey.parse(key_pem(new_key()))
NO_CA = "it responds, but not like an ACME CA: check that the URL is that of its ACME directory"

Step = Callable[[Authority], Any]


@dataclass
class Script:
    """A CA that answers each path with the next of its answers, and the last one for ever."""

    front: Front
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = self.front.url
        names = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
        self.say("/dir", Answer(200, {name: f"{url}/{name}" for name in names} | {"renewalInfo": f"{url}/ari/"}))
        self.say("/newNonce", Answer(200, b"", NONCE))
        self.front.override = self._next

    def say(self, path: str, *answers: Answer) -> None:
        self.answers[path] = list(answers)

    def _next(self, _: str, path: str) -> Answer:
        answers = self.answers[path]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def sent(self, path: str) -> list[dict[str, Any]]:
        """The payloads that came for a path."""
        bodies = (json.loads(body) for _, asked, body in self.front.requests if asked == path)
        return [json.loads(decode(body["payload"]) or b"null") for body in bodies]

    @property
    def authority(self) -> Authority:
        return Authority(self.front.directory_url, KEY, ca_file=str(self.front.ca_file))


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def done(body: Any, status: int = 200, *, retry_after: str = "0", **headers: str) -> Answer:
    return Answer(status, body, {"Content-Type": "application/json", "Retry-After": retry_after, **NONCE, **headers})


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(authority, "MIN_PAUSE", 0.0)
    with fronting(tmp_path) as front:
        yield Script(front)
    for thread in threading.enumerate():
        if thread.name == "acme":
            thread.join(10)


YEARS_AGO = datetime.now(UTC) - timedelta(days=6 * 365)


async def fault(step: Any) -> ResponderError:
    with pytest.raises(ResponderError) as caught:
        await step
    return caught.value


# The account


async def test_new_account(script: Script) -> None:
    """The account that belongs to the key is looked for, and made if it is not there, with the terms agreed to."""
    directory = script.answers["/dir"][0].body | {"meta": {"termsOfService": "https://ca.example/\x1b[2Jterms"}}
    script.say("/dir", done(directory))
    account = f"{script.front.url}/account/1"
    missing = problem(400, "accountDoesNotExist", "no account", NONCE)
    script.say("/newAccount", missing, done({"status": "valid"}, 201, Location=account))

    made = await script.authority.log_in(contact="admin@example.com")

    assert (account, True, "https://ca.example/ [2Jterms") == (made.url, made.is_new, made.terms)
    assert script.sent("/newAccount") == [
        {"onlyReturnExisting": True, "contact": []},
        {"contact": ["mailto:admin@example.com"], "termsOfServiceAgreed": True},
    ]


async def test_account_that_is_there(script: Script) -> None:
    """An account that the key has already is used, whatever the CA would want of a new one."""
    directory = script.answers["/dir"][0].body | {"meta": {"externalAccountRequired": True}}
    script.say("/dir", done(directory))
    script.say("/newAccount", done({"status": "valid"}, Location="https://ca.example/1"))

    found = await script.authority.log_in(contact="admin@example.com")

    assert ("https://ca.example/1", False) == (found.url, found.is_new)


async def test_account_that_somebody_else_just_made(script: Script) -> None:
    """Two nodes with one key end up with one account."""
    missing = problem(400, "accountDoesNotExist", "no account", NONCE)
    script.say("/newAccount", missing, done({"status": "valid"}, Location="https://ca.example/1"))

    assert "https://ca.example/1" == (await script.authority.log_in()).url


async def test_binding(script: Script) -> None:
    """A CA that wants a binding gets one for its newAccount URL; without one, nothing is asked of it."""
    directory = script.answers["/dir"][0].body | {"meta": {"externalAccountRequired": True}}
    script.say("/dir", done(directory))
    missing = problem(400, "accountDoesNotExist", "no account", NONCE)
    script.say("/newAccount", missing, missing, done({}, 201, Location="https://ca.example/1"))

    without = await fault(script.authority.log_in())
    await script.authority.log_in(binding=Binding.parse("kid-1", "c2VjcmV0/c2VjcmV0+c2VjcmV0=="))

    assert isinstance(without, Invalid)
    assert "wants an external account binding: give it the key identifier and the HMAC key" in str(without)
    bound = script.sent("/newAccount")[-1]["externalAccountBinding"]
    header = json.loads(decode(bound["protected"]))
    assert ("kid-1", "HS256", f"{script.front.url}/newAccount") == (header["kid"], header["alg"], header["url"])


@pytest.mark.parametrize("text", ["", "short", "with spaces in it", "ümlaut" * 3, "a" * 2000])
def test_binding_that_is_none(text: str) -> None:
    """What is no HMAC key is refused without being shown."""
    with pytest.raises(Invalid) as caught:
        Binding.parse("kid", text)

    assert "the HMAC key of the external account binding is not base64url" in str(caught.value)
    assert not text or text not in str(caught.value)


# Orders


async def test_order_that_replaces(script: Script) -> None:
    """A renewal says which certificate it replaces (RFC 9773, section 5); a CA that knows of another is asked again."""
    placed = done({"status": "pending", "authorizations": [], "finalize": "x"}, 201, Location="https://ca.example/o")
    script.say("/newOrder", Answer(409, {"type": "x"}, {"Location": "x", **NONCE}), placed)
    old = key_pair("api.example.com", serial=0x8765_4321).leaf

    order = await script.authority.place(["api.example.com"], replaces=old)

    identifiers = [{"type": "dns", "value": "api.example.com"}]
    assert "https://ca.example/o" == order.url
    assert script.sent("/newOrder") == [
        {"identifiers": identifiers, "replaces": certificate_id(old)},
        {"identifiers": identifiers},
    ]


def test_certificate_id() -> None:
    """The example of RFC 9773, section 4.1: a serial whose first bit is set is a positive number all the same."""
    old = key_pair("x.example", serial=0x8765_4321).leaf

    identifier = certificate_id(old)

    assert identifier is not None
    key_identifier, serial = identifier.split(".")
    assert (20, "AIdlQyE") == (len(decode(key_identifier)), serial)
    assert certificate_id(KeyPair.self_signed(None, now=datetime.now(UTC)).leaf) is None


async def test_authorizations(script: Script) -> None:
    """A valid authorization asks for nothing, a pending one for its value; one without dns-01 is no use."""
    url = script.front.url
    identifier = {"type": "dns", "value": "some.example.com"}
    token = base64.urlsafe_b64encode(b"x" * 32).rstrip(b"=").decode()
    dns = {"type": "dns-01", "url": f"{url}/challenge", "token": token, "status": "pending"}
    other = {"type": "dns-persist-01", "url": f"{url}/other", "status": "pending"}
    script.say(
        "/authz",
        done({"identifier": identifier, "status": "valid", "challenges": []}),
        done({"identifier": identifier, "status": "pending", "challenges": [other, dns]}),
        done({"identifier": identifier, "status": "pending", "challenges": [other]}),
        done({"identifier": identifier, "status": "deactivated", "challenges": [dns]}),
    )
    ca = script.authority

    assert await ca.challenge(f"{url}/authz") is None
    challenge = await ca.challenge(f"{url}/authz")
    assert challenge is not None
    assert ("some.example.com", token, 43) == (challenge.hostname, challenge.acme_token, len(challenge.value))
    for _ in range(2):
        refused = await fault(ca.challenge(f"{url}/authz"))
        assert isinstance(refused, CertificateRefused)
        assert f"the CA {url}/dir offers no dns-01 challenge for some.example.com" == str(refused)


async def test_answer_and_finalize(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CA is asked until it has made up its mind, with the pauses that it wants, within reason and time."""
    url = script.front.url
    token = base64.urlsafe_b64encode(b"x" * 32).rstrip(b"=").decode()
    failed = {"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN looking up TXT"}

    def authorization(status: str, error: Any = None) -> Answer:
        challenge = {"type": "dns-01", "url": f"{url}/challenge", "token": token, "status": status}
        if error is not None:
            challenge["error"] = error
        identifier = {"type": "dns", "value": "some.example.com"}
        return done({"identifier": identifier, "status": status, "challenges": [challenge]})

    script.say("/challenge", done({"type": "dns-01", "url": f"{url}/challenge", "token": token}, Link='<x>;rel="up"'))
    script.say("/authz", *map(authorization, ("pending", "pending", "pending", "valid")))
    ca = script.authority
    challenge = await ca.challenge(f"{url}/authz")
    assert challenge is not None
    await ca.begin_validation(challenge)

    script.say("/authz", authorization("invalid", failed))
    refused = await fault(ca.begin_validation(challenge))
    assert f"the CA {url}/dir (some.example.com) reports: {failed['type']}: {failed['detail']}" == str(refused)
    assert isinstance(refused, CertificateRefused)
    assert "some.example.com" == refused.hostname
    script.say("/authz", authorization("invalid"))
    assert str(await fault(ca.begin_validation(challenge))).endswith("(some.example.com) refused")
    monkeypatch.setattr(authority, "CONCLUSION_DEADLINE", 0.2)
    script.say("/authz", authorization("pending"))
    late = await fault(ca.begin_validation(challenge))
    assert isinstance(late, AuthorityUnavailable)
    assert "has not validated some.example.com within 0.2 seconds: try again later" in str(late)


async def test_finalize(script: Script) -> None:
    """An order is finalized once it is ready, and its certificate fetched once that is there."""
    url, csr = script.front.url, _csr()
    pair = key_pair("some.example.com")
    states = ("pending", "ready", "processing", "processing")
    script.say(
        "/newOrder",
        done({"status": "pending", "authorizations": [], "finalize": f"{url}/final"}, 201, Location=f"{url}/order"),
    )
    script.say(
        "/order",
        *(done({"status": state, "finalize": f"{url}/final"}) for state in states),
        done({"status": "valid", "finalize": f"{url}/final", "certificate": f"{url}/cert"}),
    )
    script.say("/final", done({"status": "processing", "finalize": f"{url}/final"}))
    script.say("/cert", Answer(200, pair.chain, {"Content-Type": "application/pem-certificate-chain", **NONCE}))
    ca = script.authority
    order = await ca.place(["some.example.com"])

    assert pair.chain == await ca.finalize(order, csr)
    assert 1 == script.front.asked("/final")

    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA record for api.example.com prevents issuance"}
    script.say("/order", done({"status": "invalid", "finalize": "x", "error": error}))
    assert f"the CA {url}/dir reports: {error['type']}: {error['detail']}" == str(await fault(ca.finalize(order, csr)))
    script.say("/order", done({"status": "invalid", "finalize": "x"}))
    assert str(await fault(ca.finalize(order, csr))).endswith("/dir refused")


def _csr() -> bytes:
    from acme.crypto_util import make_csr

    return make_csr(key_pem(new_key()), ["some.example.com"])


# Nonces


async def test_nonces_that_are_refused(script: Script) -> None:
    """A refused nonce is replaced by a fresh one, several times in a row; at last, its refusal is what is said."""
    refused = problem(400, "badNonce", "unacceptable", NONCE)
    good = done({"status": "valid"}, Location="https://ca.example/1")
    script.say("/newAccount", *[refused] * (network.NONCE_ATTEMPTS - 1), good)
    assert "https://ca.example/1" == (await script.authority.log_in()).url

    script.say("/newAccount", refused)
    said = await fault(script.authority.log_in())
    assert isinstance(said, AuthorityUnavailable)
    assert "urn:ietf:params:acme:error:badNonce: unacceptable" in str(said)


# Renewal information


async def test_window(script: Script) -> None:
    """Renewal information is fetched for the certificate; what makes no sense is a fault, and none is none."""
    old = key_pair("api.example.com").leaf
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC)
    path = f"/ari/{certificate_id(old)}"

    def window(first: str, last: str) -> Answer:
        return done({"suggestedWindow": {"start": first, "end": last}}, retry_after="7200")

    ca = script.authority
    script.say(path, window("2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"))
    assert (start, end) == await ca.window(old)
    assert 7200 == ca.retry_after

    for nonsense in (window("2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z"), window("soon", "later"), done({}), HTML):
        script.say(path, nonsense)
        assert isinstance(await fault(ca.window(old)), AuthorityUnavailable)

    script.say("/dir", done(dict.fromkeys(("newNonce", "newAccount", "newOrder"), "x")))
    assert await script.authority.window(old) is None


# Bad days


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (HTML, "it responds with status 502 and text/html, not like an ACME CA: check the URL, or wait"),
        (HTML_OK, NO_CA),
        (Answer(200, {"hello": "world"}), NO_CA),
        (Answer(200, [1]), NO_CA),
        (Answer(200, b"\xff\xfe"), NO_CA),
        (Answer(204, b""), NO_CA),
        (Answer(200, {"newNonce": 5, "newAccount": None, "newOrder": []}), None),
        (Answer(404, b"", {}), "it responds with status 404 and an unnamed kind of content, not like an ACME CA"),
        (Answer(301, b"", {"Location": "/dir"}), "it cannot be reached (toomanyredirects): check the URL"),
        (Answer(200, b"x" * (network.MAX_RESPONSE + 1)), "it cannot be reached (contentdecodingerror): check the URL"),
        (Answer(500, {"type": 7, "detail": ["x"]}), "reports: 7: ('x',)"),
    ],
    ids=range(11),
)
async def test_no_directory(script: Script, answer: Answer, text: str | None) -> None:
    """Whatever stands where the directory should be, there is one line about it that says what to look at."""
    script.say("/dir", answer)

    said = await fault(script.authority.log_in())

    assert isinstance(said, AuthorityUnavailable | CertificateRefused)
    assert str(said).startswith(f"the CA {script.front.directory_url}")
    assert "\n" not in str(said)
    assert (text or "the CA") in str(said)


async def test_html_in_the_middle(script: Script) -> None:
    """A gateway's page with status 200, in the middle of an order, is told as what it is."""
    url = script.front.url
    script.say("/authz", Answer(200, b"<html>", {"Content-Type": "text/html", **NONCE}))

    assert f"the CA {url}/dir: {NO_CA}" == str(await fault(script.authority.challenge(f"{url}/authz")))


async def test_problems_in_full(script: Script) -> None:
    """A problem document is passed on whole, with its parts and with when to come again, but tamed and bounded."""
    parts = [
        {
            "type": "urn:ietf:params:acme:error:rejectedIdentifier",
            "detail": f"policy forbids number {number}",
            "identifier": {"type": "dns", "value": f"{number}.example.com"},
        }
        for number in range(2)
    ]
    said = problem(
        429,
        "rateLimited",
        "too many\r\n\x1b[31mcertificates",
        {"Retry-After": "120", **NONCE},
        title="No",
        subproblems=parts,
    )
    script.say("/newOrder", said, problem(403, "unauthorized", "é" * 10_000, NONCE))

    refused = await fault(script.authority.place(["some.example.com"]))
    long = await fault(script.authority.place(["some.example.com"]))

    assert isinstance(refused, CertificateRefused)
    assert 120 == refused.retry_after
    assert str(refused) == (
        f"the CA {script.front.directory_url} reports: "
        "urn:ietf:params:acme:error:rateLimited: No: too many   [31mcertificates; "
        "0.example.com: urn:ietf:params:acme:error:rejectedIdentifier: policy forbids number 0; "
        "1.example.com: urn:ietf:params:acme:error:rejectedIdentifier: policy forbids number 1"
    )
    assert len(str(long)) < 2_200
    assert str(long).endswith("é... (and more)")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("30", 30.0), ("9" * 40, 999_999_999.0), ("-5", None), ("soon", None), ("", None), ("٣", None)],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is a number of seconds, or nothing that anybody should act on."""
    assert seconds == network._seconds(text)


def test_retry_after_as_a_date() -> None:
    """Retry-After may be a date (RFC 9110, section 10.2.3); one in the past means now."""
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    seconds = network._seconds(later)

    assert seconds is not None
    assert 3_500 < seconds <= 3_600
    assert 0.0 == network._seconds("Mon, 01 Jan 2001 00:00:00 GMT")


async def test_slow_authority(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA that is silent is given up after a while, by the request or by the step; the event loop never waits."""
    script.front.hang.clear()
    monkeypatch.setattr(network, "TIMEOUT", 0.05)
    silent = await fault(script.authority.log_in())
    monkeypatch.setattr(network, "TIMEOUT", 5)
    monkeypatch.setattr(authority, "STEP_DEADLINE", 0.05)
    late = await fault(script.authority.log_in())
    script.front.hang.set()

    url = script.front.directory_url
    assert (
        f"the CA {url}: it does not respond in time: try again later, and check that this machine can reach it"
        == str(silent)
    )
    assert f"the CA {url} does not respond in time: try again later" == str(late)


async def test_cancellation_does_not_wait(script: Script) -> None:
    """Who stops waiting for a CA goes on at once, whatever the CA does."""
    script.front.hang.clear()
    step = asyncio.create_task(script.authority.log_in())
    await eventually(lambda: script.front.requests, "the CA was asked")
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert not script.front.hang.is_set()


async def test_roots(script: Script, tmp_path: Path) -> None:
    """A CA whose HTTPS certificate is not trusted is not spoken to; a file of roots must hold some."""
    url = script.front.directory_url
    distrusted = await fault(Authority(url, KEY).log_in())
    other = tmp_path / "other.crt"
    other.write_bytes(key_pair("localhost").chain)
    mistaken = await fault(Authority(url, KEY, ca_file=str(other)).log_in())

    untrusted = "its HTTPS certificate is not trusted here ("
    assert untrusted in str(distrusted)
    assert untrusted in str(mistaken)
    assert "): for a private CA, give the file of its root" in str(distrusted)
    assert [] == script.front.requests
    for content, reason in ((b"nonsense", "holds no certificate in PEM"), (None, "no such file or directory")):
        path = tmp_path / "roots"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Invalid, match=reason):
            Authority(url, KEY, ca_file=str(path))


CLOCK = "compare `date -u` with the true time"


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (key_pair("localhost", begins=YEARS_AGO), f"has expired, or the clock of this machine is ahead: {CLOCK}"),
        (
            key_pair("localhost", begins=datetime.now(UTC) + timedelta(days=1)),
            f"is not valid yet, or the clock of this machine is behind: {CLOCK}",
        ),
        (key_pair("ca.example.com"), "is for another name: check the URL"),
    ],
)
async def test_certificate_of_the_ca(tmp_path: Path, pair: KeyPair, reason: str) -> None:
    """Where the root is given, and something else is wrong with the certificate, or the clock, that is the reason."""
    with fronting(tmp_path, pair=pair) as front:
        refused = await fault(Authority(front.directory_url, KEY, ca_file=str(front.ca_file)).log_in())

    assert f"the CA {front.directory_url}: its HTTPS certificate {reason}" == str(refused)


async def test_user_agent(script: Script) -> None:
    """The CA is told who asks (RFC 8555, section 6.1)."""
    seen: list[str] = []
    answer = script.front.answer

    def listen(method: str, path: str, headers: Any, body: bytes) -> Answer:
        seen.append(headers["User-Agent"])
        return answer(method, path, headers, body)

    script.front.answer = listen  # type: ignore[method-assign]
    script.say("/newAccount", done({}, Location="https://ca.example/1"))
    await script.authority.log_in()

    assert seen
    assert {network.USER_AGENT} == set(seen)
    assert network.USER_AGENT.startswith("responder/")
