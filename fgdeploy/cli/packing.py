"""`fgdeploy pack` and `fgdeploy unpack`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import objects, show, signing


def pack(
    bundle: objects.BundleArgument = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Default: NAME.fgdz here."),
    ] = None,
    engines: Annotated[
        bool, typer.Option("--engines", help="Take engines along; they fit this machine only.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of that name.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Sign what is packed with the owner's private key, elliptic, in PEM. Default: a "
            "signature that the bundle holds is taken along.",
            metavar="KEY",
        ),
    ] = None,
    certificate: signing.CertificateOption = None,
    as_json: show.JsonOption = False,
    old_bundle: objects.OldBundleOption = None,
) -> None:
    """Verify a bundle and write it as one file, to be carried to a device."""
    from fgdeploy.bundle.packing import SUFFIX, pack

    source = objects.bundle_of(bundle, old_bundle)
    target = Path(source.resolve().stem + SUFFIX) if output is None else output
    signer = signing.signer(sign, certificate)
    packed = pack(source, target, engines, overwrite, _megabytes("packing"), signer)
    if as_json:
        show.emit_json({**dataclasses.asdict(packed), "path": str(packed.path)})
    else:
        rows = [(name, f"{size:,}") for name, size in packed.files.items()]
        show.rows([*rows, (packed.path, f"{packed.bytes:,}")], ("name", "bytes"))
        show.line(f"sha256  {packed.sha256}")
    show.say(f"wrote {target}; next, on the device: fgdeploy unpack {target.name}")


def unpack(
    source: Annotated[Path, typer.Argument(metavar="PACKED", help="A packed bundle, NAME.fgdz.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write. Default: NAME.fgd here."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name, engines and all.")
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Take only a bundle signed with this key: a public key, or certificates, in PEM. "
            "Default: what FGDEPLOY_TRUSTED_KEY names, or any bundle.",
            metavar="KEY",
        ),
    ] = None,
    as_json: show.JsonOption = False,
) -> None:
    """Verify a packed bundle, down to every sha256, and unpack it."""
    from fgdeploy.bundle.packing import unpack

    target = Path(source.stem + ".fgd") if output is None else output
    bundle = unpack(source, target, overwrite, _megabytes("unpacking"), verify)
    files = {name: facts["bytes"] for name, facts in bundle.manifest.files.items()}
    if as_json:
        facts = {"path": str(target), "fingerprint": bundle.manifest.fingerprint, "files": files}
        show.emit_json(facts)
    else:
        show.rows([(name, f"{size:,}") for name, size in files.items()], ("name", "bytes"))
    whose = "" if bundle.owner is None else f" and signed with the key of {bundle.owner}"
    show.say(f"unpacked {target}, every sha256 verified{whose}; next: fgdeploy doctor")


def _megabytes(label: str) -> Callable[[int, int], None]:
    update = show.progress(f"{label}, MB:")
    return lambda done, total: update(done // 10**6, max(total // 10**6, 1))
