"""`fgdeploy inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import objects, show

if TYPE_CHECKING:
    from fgdeploy.bundle import Bundle


def inspect(
    path: objects.BundleArgument = None,
    as_json: show.JsonOption = False,
    sbom: Annotated[
        bool,
        typer.Option(
            "--sbom", help="Print what its engines were built with, as CycloneDX 1.6 in JSON."
        ),
    ] = False,
    old_bundle: objects.OldBundleOption = None,
) -> None:
    """Verify a bundle and show its card's first lines, token counts, MACs, files and engines."""
    from fgdeploy.bundle import card, open_bundle
    from fgdeploy.report import stating
    from fgdeploy.report.describing import proof_line, sections
    from fgdeploy.tuning import tuning_file

    bundle = open_bundle(objects.bundle_of(path, old_bundle))
    manifest = bundle.manifest
    if sbom:
        show.emit_json(_bill(bundle))
        return
    if as_json:
        show.emit_json(manifest.to_json())
        return
    told = stating.lines(bundle, card.read(bundle))
    first, *others = sections(manifest)
    show.rows([row for row in told if row[0] in _OF_CARD])
    show.rows(first.rows, title="network")
    for section in others:
        show.rows(section.rows, section.header, section.title)
    if engines := _engines(bundle):
        show.rows(engines, ("engine", "what it computes"), "engines that were built")
    if proof := proof_line(manifest.parity or {}):
        show.line("")
        show.line(proof)
    if (tuning := tuning_file.read(bundle)) is not None:
        show.line(tuning_file.line(tuning))


# The rows of the card that stand above all else; `fgdeploy card` shows all of them.
_OF_CARD = ("name", "licence", "trained on")


def _bill(bundle: Bundle) -> dict[str, Any]:
    """Return one bill of materials of all engines that have one."""
    from fgdeploy.core.errors import EngineError
    from fgdeploy.engines import bill_of_materials, record

    engines = [built.record for built in record.find(bundle) if built.record is not None]
    bills = [entry.sbom for entry in engines if entry.sbom is not None]
    if not bills:
        raise EngineError(
            f"no engine in {bundle.path} says what it was built with; build one with: fgdeploy "
            "build-engine"
        )
    for entry in engines:
        if entry.sbom is None:
            show.say(f"{entry.name} does not say what it was built with; build it again")
    name = bundle.path.resolve().name
    return bill_of_materials.merged(name, bundle.manifest.fingerprint, bills)


def _engines(bundle: Bundle) -> list[tuple[str, str]]:
    """Return the engines in a bundle and what they compute, those for other machines too."""
    from fgdeploy.engines import record
    from fgdeploy.engines.engine_layers import Layers

    found = []
    for built in record.find(bundle):
        if (entry := built.record) is None:
            found.append((built.folder.name, built.problem))
        else:
            told = Layers(**entry.layers).words() if entry.layers is not None else "not told"
            found.append((entry.name, told))
    return found
