"""Sign a bundle with its owner's key, by OpenSSF model signing.

`model_signing verify` checks the same signature without fgdeploy.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fgdeploy.bundle.folder import ENGINES, Bundle
from fgdeploy.bundle.manifest import MANIFEST
from fgdeploy.bundle.signature import SIGNATURE, key_text, library
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError

# An encrypted key's password; not an option, which other users of the machine could see.
PASSWORD = "FGDEPLOY_KEY_PASSWORD"

_NEED = "signing a bundle"
_MAKE = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"


def sign(
    bundle: Bundle,
    key: str | os.PathLike[str],
    certificate: str | os.PathLike[str] | None = None,
    engines: Iterable[str] = (),
) -> bytes:
    """Return the signature over a bundle's manifest and all files that it lists.

    key: an elliptic private key in PEM. certificate: that of the key, with the chain behind it in
    the same file. engines: names below the bundle that are signed too. Raises BundleError,
    MissingDependency; the key is read, kept nowhere and never shown.
    """
    signing = library(_signing, _NEED)
    password = _check_key(Path(key), certificate is not None)
    config = signing.Config()
    try:
        if certificate is None:
            # The library's annotation says str, which cryptography refuses
            config.use_elliptic_key_signer(private_key=key, password=password)
        else:
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=[certificate]
            )
    except Exception as error:  # of the certificate: the key was read before
        reason = " ".join(str(error).split())[:120]
        raise BundleError(
            f"{certificate} does not go with {key} ({reason}); give the certificate of that key, "
            "in PEM, with the chain behind it"
        ) from None
    names = [MANIFEST, *bundle.manifest.files, *engines]
    config.set_hashing_config(_only(bundle.path, names, ignored=not engines))
    with tempfile.TemporaryDirectory(prefix="fgdeploy-") as private:
        made = Path(private) / SIGNATURE
        config.sign(bundle.path, made)
        return made.read_bytes()


def write(bundle: Bundle, signature: bytes) -> Path:
    """Keep a signature in its bundle, in the place of an earlier one. Raises OSError."""
    target: Path = bundle.path / SIGNATURE
    with atomic.new_file(target) as stream:
        stream.write(signature)
    return target


def _signing() -> Any:
    from model_signing import signing

    return signing


def _only(folder: Path, names: Iterable[str], ignored: bool) -> Any:
    """Return what hashes these files alone, whatever else lies in the folder."""
    from model_signing import hashing

    class Listed(hashing.Config):  # type: ignore[misc, unused-ignore]
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            return super().hash(model_path, files_to_hash=[folder / name for name in names])

    paths = [SIGNATURE, *([ENGINES] if ignored else [])]
    return Listed().set_ignored_paths(paths=paths)


def _check_key(path: Path, with_certificate: bool) -> bytes | None:
    """Return the password of a private key, None where it has none. Raises BundleError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    text = key_text(path, "an elliptic private key")
    password = os.environ.get(PASSWORD, "").encode() or None
    if b"PRIVATE KEY-----" not in text:
        raise BundleError(f"{path} is no private key in PEM; {_MAKE}")
    encrypted = b"ENCRYPTED" in text
    if encrypted and with_certificate:
        raise BundleError(
            f"{path} is encrypted, which model-signing does not take with a certificate; give "
            "the key unencrypted, on a disk that is"
        )
    if encrypted and password is None:
        raise BundleError(f"{path} is encrypted; set {PASSWORD} to its password")
    try:
        key = serialization.load_pem_private_key(text, password if encrypted else None)
    except Exception:  # each kind of damage has an error of its own; none is shown
        why = f"or {PASSWORD} is not its password" if encrypted else "it is damaged"
        raise BundleError(f"{path} cannot be read as a private key, {why}; {_MAKE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in (
        *("secp256r1", "secp384r1"),
        "secp521r1",
    ):
        raise BundleError(f"{path} is not an elliptic key of P-256, P-384 or P-521; {_MAKE}")
    return password if encrypted else None
