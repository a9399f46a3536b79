"""Keys and certificates of owners, made anew by each run of the tests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("model_signing", reason="needs model-signing (extra sign)")
pytest.importorskip("OpenSSL", reason="needs pyopenssl (extra sign)")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "a password"
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Owner:
    """Files of an owner: private and public key, and for certificates the chain and the root."""

    private: Path
    public: Path
    chain: Path
    root: Path


def private_pem(key: Any, password: str | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def owner(
    folder: Path, password: str | None = None, days: tuple[int, int] = (-2, 2), signs: bool = True
) -> Owner:
    """Make an owner's files in a folder; days: when the certificate begins and ends, from now."""
    folder.mkdir()
    key, above = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    made = Owner(*(folder / name for name in ("key.pem", "pub.pem", "chain.pem", "root.pem")))
    made.private.write_bytes(private_pem(key, password))
    made.public.write_bytes(public_pem(key))
    root = _certificate("authority", above, "authority", above, (-9, 9), authority=True)
    leaf = _certificate("owner", key, "authority", above, days, signs=signs)
    made.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    made.chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    return made


def _certificate(
    subject: str,
    key: Any,
    issuer: str,
    by: Any,
    days: tuple[int, int],
    authority: bool = False,
    signs: bool = True,
) -> Any:
    name, above = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (subject, issuer)
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    uses = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs and not authority, key_cert_sign=authority, **uses
            ),
            critical=True,
        )
        .sign(by, hashes.SHA256())
    )
