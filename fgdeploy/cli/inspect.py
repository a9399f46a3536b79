"""`fgdeploy inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import objects, show

if TYPE_CHECKING:
    from fgdeploy.bundle import BlockRows, Bundle, Manifest


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


@dataclass(frozen=True)
class Section:
    """A table of what a manifest says."""

    rows: Sequence[tuple[str, ...]]
    header: tuple[str, ...] = ()
    title: str = ""


def sections(manifest: Manifest) -> list[Section]:
    """Return all that a manifest says of the network and its files."""
    return [
        Section(_rows(manifest)),
        Section(
            _token_rows(manifest),
            ("blocks", "tokens", "queries", "proj and MLP"),
            "token rows through the blocks",
        ),
        Section(
            _macs(manifest.macs),
            ("network", "MACs", "of dense"),
            "multiply-accumulates per image",
        ),
        Section(_files(manifest), ("name", "bytes", "sha256"), "files (sizes and sha256 verified)"),
    ]


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


def _rows(manifest: Manifest) -> list[tuple[str, str]]:
    weights, photo = manifest.weights, manifest.preprocess
    scaled = "both sides" if photo.square else "short side"
    return [
        ("method", manifest.method),
        *((name, show.option(value)) for name, value in manifest.options.items()),
        ("backbone", f"{manifest.backbone} ({manifest.depth} blocks, width {manifest.width})"),
        (
            "input",
            f"{manifest.image_size} px, patches of {manifest.patch_size}: "
            f"{manifest.grid[0]}x{manifest.grid[1]} + {manifest.prefix_tokens} tokens",
        ),
        (
            "code",
            f"{manifest.bits} bits, {manifest.code_bytes} bytes, head {manifest.head['kind']}",
        ),
        ("weights", f"{weights['source']} (sha256 {weights['sha256'][:16]})"),
        ("fingerprint", manifest.fingerprint[:16]),
        (
            "photo",
            f"{scaled} to {photo.resize}, middle {photo.size} square, {photo.interpolation}",
        ),
        ("graph", f"opset {manifest.graph['opset']}, {', '.join(manifest.outputs)}"),
        *_classes(manifest),
        ("made by", manifest.created_by),
    ]


def _classes(manifest: Manifest) -> list[tuple[str, str]]:
    """Return a row on the classes where the graph gives logits."""
    if "logits" not in manifest.outputs:
        return []
    names = f"such as {manifest.classes[0]}" if manifest.classes else "without names"
    return [("classes", f"{manifest.outputs['logits'].shape[0]:,}, {names}")]


def _macs(macs: Mapping[str, int]) -> list[tuple[str, str, str]]:
    names = ("dense", "published", "exported")
    return [(name, show.macs(macs[name]), f"{macs[name] / macs['dense']:.0%}") for name in names]


def _files(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [
        (name, f"{facts['bytes']:,}", facts["sha256"][:16])
        for name, facts in manifest.files.items()
    ]


def proof_line(proof: Mapping[str, Any]) -> str:
    """Return the last proof in one line: what of it was recorded."""
    words = {
        "candidate": "{}",
        "reference": "against {}",
        "photos": "{} images",
        "max_hash_diff": "max |hash difference| {:.1e}",
        "bit_agreement": "{:.2%} of bits equal",
    }
    parts = [form.format(proof[name]) for name, form in words.items() if name in proof]
    line = ", ".join(parts).replace(", against", " against", 1)
    return f"last parity: {line}" if parts else ""


def _token_rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Return rows for runs of blocks that do the same: numbers, tokens, rows of proj and MLP.

    Of a method that looks twice, one look behind the other.
    """
    groups: list[list[BlockRows]] = []
    for run in manifest.blocks:
        last = groups[-1][-1] if groups else None
        if last is not None and _work(last) == _work(run) and last.block + 1 == run.block:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        (_numbers(alike), str(alike[0].tokens), str(alike[0].query), str(alike[0].mlp))
        for alike in groups
    ]


def _numbers(runs: list[BlockRows]) -> str:
    first, last = runs[0].block, runs[-1].block
    return str(first) if first == last else f"{first}-{last}"


def _work(run: BlockRows) -> tuple[int, ...]:
    return (run.tokens, run.query, run.keyval, run.proj, run.mlp)
