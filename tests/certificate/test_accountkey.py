"""Account keys as ACME clients keep them, and the thumbprints that identify them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from responder.certificate import accountkey
from responder.cli.commands import cli
from responder.errors import Invalid

# RFC 7638, section 3.1.
RFC_KEY = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc"
        "_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ"
        "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF"
        "TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)

PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


def base64url(number: int, octets: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(octets, "big")).rstrip(b"=").decode()


def jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> dict[str, str]:
    """The members of a public key's JWK that RFC 7638 counts, each as RFC 7518, section 6, has it."""
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": base64url(rsa_numbers.n, key.key_size // 8), "e": base64url(rsa_numbers.e, 3)}
    numbers, octets = key.public_key().public_numbers(), (key.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": f"P-{key.key_size}",
        "x": base64url(numbers.x, octets),
        "y": base64url(numbers.y, octets),
    }


def expected(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    text = json.dumps(jwk(key), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def pem(key: Any, form: serialization.PrivateFormat = PKCS8, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))


def public_pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def written(directory: Path, content: bytes) -> Path:
    path = directory / "key"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("key", [EC, RSA, ec.generate_private_key(ec.SECP521R1())], ids=["P-256", "RSA", "P-521"])
@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL], ids=["PKCS8", "traditional"])
def test_pem(tmp_path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: Any) -> None:
    """Keys in PEM, as lego, acme.sh and cert-manager write them, give the thumbprint of their public half."""
    assert expected(key) == accountkey.thumbprint(written(tmp_path, pem(key, form)))
    assert expected(key) == accountkey.thumbprint(written(tmp_path, public_pem(key)))


def test_jwk(tmp_path: Path) -> None:
    """A JWK, as certbot's private_key.json, gives the thumbprint of its public half; other members do not count."""
    numbers = RSA.private_numbers()
    private = {
        name: base64url(number, (number.bit_length() + 7) // 8)
        for name, number in (
            ("d", numbers.d),
            ("p", numbers.p),
            ("q", numbers.q),
            ("dp", numbers.dmp1),
            ("dq", numbers.dmq1),
            ("qi", numbers.iqmp),
        )
    }

    assert RFC_THUMBPRINT == accountkey.thumbprint(written(tmp_path, json.dumps(RFC_KEY).encode()))
    assert expected(RSA) == accountkey.thumbprint(written(tmp_path, json.dumps(jwk(RSA) | private).encode()))
    assert expected(EC) == accountkey.thumbprint(written(tmp_path, b"\n " + json.dumps(jwk(EC)).encode()))


ED25519 = ed25519.Ed25519PrivateKey.generate()
DAMAGED = "the key in it is damaged, or neither RSA nor EC on a NIST curve"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it holds no key in PEM and no JWK: name the file of the account key"),
        (bytes(range(128, 192)), "it holds no key in PEM and no JWK: name the file of the account key"),
        (pem(EC, password=b"x"), "the key is encrypted: write it without passphrase to a file that only you can read"),
        (
            pem(RSA, TRADITIONAL, b"x"),
            "the key is encrypted: write it without passphrase to a file that only you can read",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "it is PEM, but holds no key: name the file of the account key",
        ),
        (pem(ED25519), "the key is neither RSA nor EC: other kinds are not supported"),
        (pem(ec.generate_private_key(ec.SECP256K1())), DAMAGED),
        (pem(EC)[:100], DAMAGED),
        (b"{", "it looks like JSON, but is not: name the file of the account key"),
        (b'{"a":' * 3_000, "it looks like JSON, but is not: name the file of the account key"),
        (b'{"body": {}, "uri": ""}', "it is JSON, but not a JWK: the file of certbot is named private_key.json"),
        (b'{"kty": "oct", "k": "AAAA"}', "it is a JWK, but neither RSA nor EC: name the file of the account key"),
        (b'{"kty": ["RSA"]}', DAMAGED),
        (b'{"kty": "RSA"}', DAMAGED),
        (b'{"kty": "RSA", "n": 5, "e": "AQAB"}', DAMAGED),
        (b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQ"}', DAMAGED),
        (b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}', DAMAGED),
        (b'{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}', DAMAGED),
        (b"{" * (accountkey.MAX_KEY_FILE + 1), "cannot be read: it is longer than 16 KiB"),
    ],
    ids=lambda part: part[:20] if isinstance(part, bytes) else "",
)
def test_what_is_no_account_key(tmp_path: Path, content: bytes, fault: str) -> None:
    """A file without a usable key is refused with a line that says what it holds, and never by quoting it."""
    path = written(tmp_path, content)

    with pytest.raises(Invalid) as caught:
        accountkey.thumbprint(path)

    assert f"{path}: {fault}" == str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, or a directory, is refused in one line."""
    for path, reason in ((tmp_path / "none", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(Invalid, match=f"^{path}: cannot be read: {reason}$"):
            accountkey.thumbprint(path)


def test_command(tmp_path: Path) -> None:
    """`responder thumbprint` prints the thumbprint alone, or as JSON, and needs no configuration."""
    path, run = str(written(tmp_path, pem(EC))), CliRunner().invoke

    assert f"{expected(EC)}\n" == run(cli, ["thumbprint", path]).output
    assert {"thumbprint": expected(EC)} == json.loads(run(cli, ["thumbprint", path, "--output", "json"]).output)
