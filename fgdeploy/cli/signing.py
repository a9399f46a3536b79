"""`fgdeploy sign` and `fgdeploy verify`; options of the commands that ask whose a bundle is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.bundle import Bundle
    from fgdeploy.bundle.packing import Signer

VerifyKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--verify-key",
        help="Take only a bundle signed with this key: a public key, or certificates, in PEM. "
        "Default: what FGDEPLOY_TRUSTED_KEY names, or any bundle.",
        metavar="KEY",
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        help="The certificate of the key, with the chain behind it, in PEM. Default: none, the "
        "bare key signs.",
        metavar="FILE",
    ),
]


def sign(
    bundle: objects.BundleArgument = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="The owner's private key, elliptic, in PEM. Of an encrypted one the password "
            "stands in FGDEPLOY_KEY_PASSWORD. Default: none, it must be named.",
            metavar="KEY",
        ),
    ] = None,
    certificate: CertificateOption = None,
    engines: Annotated[
        bool, typer.Option("--engines", help="Sign the compiled engines in it, too.")
    ] = False,
) -> None:
    """Sign a bundle with its owner's key: model.sig in it, as OpenSSF model signing writes it."""
    from fgdeploy.bundle import open_bundle, signing
    from fgdeploy.bundle.packing import engine_files
    from fgdeploy.core.errors import UsageError

    if key is None:
        raise UsageError("no key to sign with; name the owner's private key with --key")
    opened = open_bundle(objects.bundle_of(bundle, None))
    names = sorted(engine_files(opened, engines))
    path = signing.write(opened, signing.sign(opened, key, certificate, names))
    show.say(
        f"wrote {path}; next, with the public key: fgdeploy verify {opened.path} --key PUBLIC_KEY"
    )


def verify(
    bundle: objects.BundleArgument = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="The owner's public key, or certificates of authorities, in PEM. Default: what "
            "FGDEPLOY_TRUSTED_KEY names.",
            metavar="KEY",
        ),
    ] = None,
) -> None:
    """Verify that a bundle is whole, and signed with its owner's key."""
    from fgdeploy.bundle import open_bundle, trust
    from fgdeploy.core.errors import UsageError

    if (demanded := trust.demanded(key)) is None:
        raise UsageError(f"no key to check with; name one with --key, or in {trust.TRUSTED_KEY}")
    opened = open_bundle(objects.bundle_of(bundle, None), demanded)
    show.say(
        f"{opened.path} is whole and signed with the key of {demanded}: "
        f"{counted(len(opened.signed), 'file')}; next: fgdeploy camera --verify-key {demanded}"
    )


def signer(key: Path | None, certificate: Path | None) -> Signer | None:
    """Return who signs what is packed, None for nobody. Raises UsageError."""
    from fgdeploy.bundle import signing
    from fgdeploy.core.errors import UsageError

    if key is None:
        if certificate is not None:
            raise UsageError("--certificate without a key; name the key with --sign")
        return None

    def by_owner(bundle: Bundle, engines: Collection[str]) -> bytes:
        return signing.sign(bundle, key, certificate, engines)

    return by_owner
