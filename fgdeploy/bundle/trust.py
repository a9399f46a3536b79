"""Whose bundle is it? A device that is told its owner's key opens no other.

The key is a public key, or certificates of authorities, in one PEM file. What is proven:
every file that the manifest lists, and the manifest, is byte for byte what the holder of the key
signed; nothing else lies in the folder but compiled engines.
"""

from __future__ import annotations

import datetime
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdeploy.bundle.manifest import MANIFEST, Manifest
from fgdeploy.bundle.signature import SIGNATURE, Signature, key_text, library, read
from fgdeploy.core.errors import BundleError

if TYPE_CHECKING:
    from cryptography import x509

# The key that is demanded of every bundle on this machine.
TRUSTED_KEY = "FGDEPLOY_TRUSTED_KEY"
# Set to 1: engines that the signature does not cover are not run either.
SIGNED_ENGINES = "FGDEPLOY_SIGNED_ENGINES"

_ENGINES = "engines"
_NEED = "checking whose a bundle is"
_KIND = "a public key or certificates"
_REFUSED = "do not use this bundle, or ask its owner for it again"


def demanded(key: str | os.PathLike[str] | None) -> Path | None:
    """Return the key that a bundle must be signed with: the one given, or this machine's."""
    named = key or os.environ.get(TRUSTED_KEY)
    return Path(named) if named else None


def engines_too() -> bool:
    """Tell whether engines must lie under the signature on this machine."""
    return os.environ.get(SIGNED_ENGINES, "") not in ("", "0")


def verify(folder: Path, manifest: Manifest, key: Path) -> frozenset[str]:
    """Return the names of the files that the holder of `key` signed, each of them checked.

    Raises BundleError in one line: not signed, of another key, a file that was changed, added or
    removed, an expired certificate, a damaged signature, a key that is none; MissingDependency.
    """
    of_authority = _is_authority(key)
    signature = read(folder / SIGNATURE)
    if of_authority != signature.by_certificate:
        kinds = ("a key", "a certificate")
        raise BundleError(
            f"{folder} was signed with {kinds[signature.by_certificate]}, {key} is "
            f"{'of an authority' if of_authority else 'a public key'}; give the one that belongs "
            f"to {kinds[signature.by_certificate]}"
        )
    _check_names(folder, manifest, signature)
    if signature.by_certificate:
        _check_certificates(folder, signature)
    _prove(folder, signature, key)
    return frozenset(signature.files)


def _is_authority(key: Path) -> bool:
    """Tell whether a key file holds certificates, or else a public key. Raises BundleError."""
    text = key_text(key, _KIND)
    if b"PRIVATE KEY-----" in text:
        raise BundleError(
            f"{key} holds a private key, which stays with the owner; give the public one, from: "
            f"openssl pkey -in {key.name} -pubout"
        )
    serialization, x509 = library(_cryptography, _NEED)
    try:
        if b"-----BEGIN CERTIFICATE-----" in text:
            return bool(x509.load_pem_x509_certificates(text))
        curve = serialization.load_pem_public_key(text).curve.name
    except Exception:  # each kind of damage has an error of its own, an RSA key no curve
        raise _no_key(key) from None
    if curve not in ("secp256r1", "secp384r1", "secp521r1"):
        raise _no_key(key)
    return False


def _no_key(key: Path) -> BundleError:
    return BundleError(
        f"{key} is no key to check with; expected an elliptic public key (P-256, P-384 or P-521) "
        "or certificates, in PEM"
    )


def _cryptography() -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    return serialization, x509


def _check_names(folder: Path, manifest: Manifest, signature: Signature) -> None:
    """Refuse files that were added, removed or left out of the signature."""
    signed = signature.files
    for name, facts in {MANIFEST: None, **manifest.files}.items():
        if name not in signed:
            raise BundleError(f"{folder} holds {name!r}, which was not signed; {_REFUSED}")
        if facts is not None and facts["sha256"] != signed[name]:
            raise _changed(folder, name)
    for name in sorted(signed):
        place = folder / name
        harmless = ".." not in Path(name).parts and not Path(name).is_absolute()
        if not harmless or not os.path.lexists(place) or not stat.S_ISREG(place.lstat().st_mode):
            raise BundleError(f"{folder} lacks {name!r}, which was signed; {_REFUSED}")
    for entry in sorted(_files(folder)):
        if entry not in signed and entry != SIGNATURE:
            raise BundleError(f"{folder} holds {entry!r}, which was not signed; {_REFUSED}")


def _files(folder: Path) -> list[str]:
    """Return all that lies in a bundle and is no folder, but for engines. Follows no links."""
    names = []
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder and _ENGINES in folders:
            folders.remove(_ENGINES)
        links = [one for one in folders if os.path.islink(os.path.join(parent, one))]
        names += [(Path(parent) / one).relative_to(folder).as_posix() for one in (*files, *links)]
    return names


def _changed(folder: Path, name: str) -> BundleError:
    return BundleError(
        f"{folder / name} is not what was signed: it was changed since, or {SIGNATURE} is another "
        f"bundle's; {_REFUSED}"
    )


def _check_certificates(folder: Path, signature: Signature) -> None:
    """Refuse certificates that are not valid now, and signers that are no signers.

    The library asks only whether they were when the signer's began.
    """
    _, x509 = library(_cryptography, _NEED)
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        chain = [x509.load_der_x509_certificate(one) for one in signature.certificates]
        use = chain[0].extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        use = False
    except Exception:  # none of them, or not readable
        raise BundleError(f"{folder / SIGNATURE} holds a damaged certificate; {_REFUSED}") from None
    for one in chain:
        _check_date(folder, one, now)
    if not use:
        raise BundleError(
            f"{folder} was signed with a certificate that is not meant for it; expected the key "
            "usage digitalSignature: its owner signs it with another"
        )


def _check_date(folder: Path, one: x509.Certificate, now: datetime.datetime) -> None:
    if one.not_valid_before_utc <= now <= one.not_valid_after_utc:
        return
    when = "is not valid before" if now < one.not_valid_before_utc else "expired on"
    day = one.not_valid_before_utc if now < one.not_valid_before_utc else one.not_valid_after_utc
    raise BundleError(
        f"{folder} was signed with a certificate that {when} {day:%Y-%m-%d}, here it is "
        f"{now:%Y-%m-%d}; set the clock, or sign the bundle with a new certificate"
    )


def _prove(folder: Path, signature: Signature, key: Path) -> None:
    """Have the library check the signature and hash every file that it covers."""
    verifying = library(_verifying, _NEED)
    config = verifying.Config().set_ignore_unsigned_files(True)
    # Checked is what was read, whatever becomes of the file meanwhile
    with tempfile.TemporaryDirectory(prefix="fgdeploy-") as private:
        proof = Path(private) / SIGNATURE
        proof.write_bytes(signature.content)
        try:
            if signature.by_certificate:
                config.use_certificate_verifier(certificate_chain=[key])
            else:
                config.use_elliptic_key_verifier(public_key=key)
            config.verify(folder, proof)
        except Exception as error:  # of four packages, each with errors of its own
            raise _refusal(folder, key, error) from None


def _verifying() -> Any:
    from model_signing import verifying

    return verifying


def _refusal(folder: Path, key: Path, error: Exception) -> BundleError:
    words = " ".join(str(error).split())
    if found := re.search(r"Hash mismatch for \\?'([^'\\]*)", words):  # a list in quotes
        return _changed(folder, found[1])
    if type(error).__name__ == "InvalidSignature" or words.startswith("Key mismatch"):
        return BundleError(f"{folder} was not signed with the key of {key}; {_REFUSED}")
    if type(error).__name__ == "X509StoreContextError":
        return BundleError(
            f"{folder} was signed with a certificate that does not lead to one in {key} "
            f"({words[:100]}); {_REFUSED}"
        )
    reason = words[:120] or type(error).__name__
    return BundleError(f"{folder / SIGNATURE} is damaged ({reason}); {_REFUSED}")
