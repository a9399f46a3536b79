"""`fgdeploy inspect`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import typer

from fgdeploy.cli import objects, show

if TYPE_CHECKING:
    from fgdeploy.bundle import BlockRows, Manifest


def inspect(
    path: objects.BundleArgument = None,
    as_json: show.JsonOption = False,
    old_bundle: objects.OldBundleOption = None,
) -> None:
    """Verify a bundle and show its stages, token counts, MACs and files."""
    from fgdeploy.bundle import open_bundle

    bundle = open_bundle(objects.bundle_of(path, old_bundle))
    manifest = bundle.manifest
    if as_json:
        show.emit_json(manifest.to_json())
        return
    other = manifest.prefix_tokens
    rows = [
        ("method", manifest.method),
        *((name, show.option(value)) for name, value in manifest.options.items()),
        ("backbone", f"{manifest.backbone} ({manifest.depth} blocks, width {manifest.width})"),
        (
            "input",
            f"{manifest.image_size} px, patches of {manifest.patch_size}: "
            f"{manifest.grid[0]}x{manifest.grid[1]} + {other} tokens",
        ),
        (
            "code",
            f"{manifest.bits} bits, {manifest.code_bytes} bytes, head {manifest.head['kind']}",
        ),
        ("weights", f"{manifest.weights['source']} (sha256 {manifest.weights['sha256'][:16]})"),
        ("fingerprint", manifest.fingerprint[:16]),
        (
            "photo",
            f"short side to {manifest.preprocess.resize}, middle {manifest.preprocess.size} "
            f"square, {manifest.preprocess.interpolation}",
        ),
        ("graph", f"opset {manifest.graph['opset']}, {', '.join(manifest.outputs)}"),
        ("made by", manifest.created_by),
    ]
    typer.echo(show.table(rows))
    typer.echo("\ntoken rows through the blocks")
    header = ("blocks", "tokens", "queries", "proj and MLP")
    typer.echo(show.table(_token_rows(manifest), header))
    typer.echo("\nmultiply-accumulates per image")
    dense = manifest.macs["dense"]
    typer.echo(
        show.table(
            [
                (name, f"{manifest.macs[name] / 1e9:.3f} G", f"{manifest.macs[name] / dense:.0%}")
                for name in ("dense", "published", "exported")
            ]
        )
    )
    typer.echo("\nfiles (sizes and sha256 verified)")
    files = [
        (name, f"{facts['bytes']:,}", facts["sha256"][:16])
        for name, facts in manifest.files.items()
    ]
    typer.echo(show.table(files, ("name", "bytes", "sha256")))
    if manifest.parity:
        proof = manifest.parity
        typer.echo(
            f"\nlast parity: {proof['candidate']} against {proof['reference']}, "
            f"{proof['photos']} images, max |hash difference| {proof['max_hash_diff']:.1e}, "
            f"{proof['bit_agreement']:.2%} of bits equal"
        )


def _token_rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """Return rows for runs of blocks that do the same: numbers, tokens, rows of proj and MLP."""
    rows: list[tuple[str, str, str, str]] = []
    runs = list(manifest.blocks)
    while runs:
        first = runs[0]
        _, group = next(itertools.groupby(runs, key=_work))
        alike = list(group)
        numbers = f"{first.block}-{alike[-1].block}" if len(alike) > 1 else str(first.block)
        rows.append((numbers, str(first.tokens), str(first.query), str(first.mlp)))
        runs = runs[len(alike) :]
    return rows


def _work(run: BlockRows) -> tuple[int, ...]:
    return (run.tokens, run.query, run.keyval, run.proj, run.mlp)
