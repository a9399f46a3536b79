"""`model.sig`: an owner's signature over the files of a bundle, in the format of OpenSSF.

It is a DSSE envelope with an in-toto statement (model signing v1.0) that lists the sha256 of every
file but the signature itself. Reading it proves nothing: `bundle.trust` does.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.core import json_schema
from fgdeploy.core.errors import BundleError, MissingDependency

SIGNATURE = "model.sig"
LARGEST = 1 << 22  # bytes; one of a bundle has a few thousand

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_AGAIN = "sign the bundle again with: fgdeploy sign"


@dataclass(frozen=True)
class Signature:
    """What a signature says, not yet proven.

    content: the whole file. by_certificate: signed with a certificate, or with a bare key.
    certificates: its chain in DER, the signer's first. files: name -> sha256 of what was signed.
    """

    content: bytes
    by_certificate: bool
    certificates: tuple[bytes, ...]
    files: Mapping[str, str]


def read(path: Path) -> Signature:
    """Read a signature. Raises BundleError where there is none, or it is damaged or too large."""
    try:
        facts = path.lstat()
    except OSError:
        raise BundleError(
            f"{path.parent} is not signed (it holds no {path.name}), and only bundles of a trusted "
            "key are taken here; its owner signs it with: fgdeploy sign"
        ) from None
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST:
        raise BundleError(f"{path} is a link, no file, or over {LARGEST} bytes; {_AGAIN}")
    content = path.read_bytes()
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, binascii.Error) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{path} is cut short, damaged or no signature ({reason[:120]}); {_AGAIN}"
        ) from None


def _parse(content: bytes) -> Signature:
    entry = json_schema.parse(content)
    material, envelope = entry["verificationMaterial"], entry["dsseEnvelope"]
    chain = material.get("x509CertificateChain")
    if chain is None and not material.get("publicKey", {}).get("hint"):
        raise ValueError("neither of a key nor of a certificate; Sigstore's are not taken here")
    certificates = (
        [] if chain is None else [_bytes(one["rawBytes"]) for one in chain["certificates"]]
    )
    statement = json_schema.parse(_bytes(envelope["payload"]))
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError("not of OpenSSF model signing v1.0")
    predicate = statement["predicate"]
    how = predicate["serialization"]
    if how["method"] != "files" or how["hash_type"] != "sha256" or how["allow_symlinks"]:
        raise ValueError("expected the sha256 of whole files, and no links")
    files: dict[str, str] = {}
    for one in predicate["resources"]:
        json_schema.NAME(one["name"], "name")
        json_schema.sha256(one["digest"], one["name"])
        if one["algorithm"] != "sha256" or one["name"] in files:
            raise ValueError(f"{one['name']!r} twice, or not by sha256")
        files[one["name"]] = one["digest"]
    return Signature(content, chain is not None, tuple(certificates), files)


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def check_carried(path: Path, names: set[str], manifest: str) -> None:
    """Refuse to carry along a signature that a bundle has outgrown.

    names: what is carried; manifest: the sha256 of its manifest. Raises BundleError.
    """
    signed = read(path).files
    if signed.get("manifest.json") != manifest:
        raise BundleError(f"{path.parent} changed since it was signed; {_AGAIN}, or remove {path}")
    if lacking := sorted(set(signed) - names):
        raise BundleError(
            f"{path} covers {lacking[0]}, which would stay behind; take the engines along "
            "(--engines), or sign again without them"
        )


def library(load: Callable[[], Any], need: str) -> Any:
    """Return what `load` imports of the signing packages. Raises MissingDependency."""
    try:
        return load()
    except ImportError as error:
        missing = "pyopenssl" if (error.name or "").startswith("OpenSSL") else "model-signing"
        raise MissingDependency(missing, "sign", need) from None


def key_text(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the PEM text of a key or certificate. Raises BundleError; never shows any of it."""
    place = Path(path)
    try:
        if not place.is_file() or place.stat().st_size > LARGEST:
            raise BundleError(
                f"{place} is not there or no file; expected {what} in PEM: check the path"
            )
        return place.read_bytes()
    except OSError as error:
        raise BundleError(f"{place} cannot be read ({error.strerror}); check its rights") from None
