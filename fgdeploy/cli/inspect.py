"""`fgdeploy inspect`."""

from __future__ import annotations

import typer

from fgdeploy.cli import objects, show


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
        ("backbone", f"{manifest.backbone} ({manifest.depth} blocks, width {manifest.width})"),
        (
            "input",
            f"{manifest.image_size} px, patches of {manifest.patch_size}: "
            f"{manifest.patches} + {other} tokens",
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
        ("graph", f"opset {manifest.graph['opset']}, {', '.join(manifest.graph['outputs'])}"),
        ("made by", manifest.created_by),
    ]
    typer.echo(show.table(rows))
    typer.echo("\ntokens (patches + others) through the blocks")
    typer.echo(show.table(_token_rows(manifest), ("blocks", "tokens", "kept after")))
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


def _token_rows(manifest: object) -> list[tuple[str, str, str]]:
    from fgdeploy.bundle import Manifest

    assert isinstance(manifest, Manifest)
    rows, first, tokens = [], 1, manifest.patches
    for stage in manifest.stages:
        rows.append(
            (f"{first}-{stage.block}", f"{tokens} + {manifest.prefix_tokens}", str(stage.keep))
        )
        first, tokens = stage.block + 1, stage.keep
    rows.append((f"{first}-{manifest.depth}", f"{tokens} + {manifest.prefix_tokens}", "CLS"))
    return rows
