"""`fgdeploy export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, method_options, objects, show
from fgdeploy.core.errors import MissingDependency
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fgdeploy.bundle import Manifest
    from fgdeploy.export.against_dense import AgainstDense
    from fgdeploy.photos import Columns
    from fgdeploy.proof.parity import Parity


@lists.takes_list
def export(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="A training's folder, or weights: .safetensors, .pth or .pt, the authors' or "
            "timm's names. Default: the only training in this folder, where neither --weights nor "
            "--backbone is given.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="The method. Default: the checkpoint's, else eet.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write. Default: METHOD.fgd."),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", hidden=True)] = None,
    weights: Annotated[
        str, typer.Option(help="Without RUN: pretrained (timm's hub) or random (trials).")
    ] = "pretrained",
    weights_key: method_options.WeightsKeyOption = None,
    rename: method_options.RenameOption = [],  # noqa: B006
    backbone: Annotated[
        str | None,
        typer.Option(help="A timm ViT or DeiT. Default: told from the weights, else the method's."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=8192, help="Input side in pixels. Default: the method's."),
    ] = None,
    chosen: method_options.SetOption = [],  # noqa: B006
    stages: method_options.StagesOption = None,
    head: Annotated[
        str, typer.Option(help="Hash head: auto, trained, itq (needs --fit-data) or lsh.")
    ] = "auto",
    bits: Annotated[
        int | None, typer.Option(min=8, max=512, help="Bits of a code. Default: 64.")
    ] = None,
    fit_data: Annotated[
        Path | None,
        typer.Option(help="Photos to fit the head on: a folder, or a CSV (its train split)."),
    ] = None,
    fit_images: Annotated[
        int, typer.Option(min=1, help="Most photos to fit on, spread over the classes.")
    ] = 4096,
    crop: Annotated[
        float | None,
        typer.Option(
            help="Middle part of the short side that is used, 0 to 1. Default: the method's."
        ),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Keep the class logits as output.")
    ] = False,
    class_names: Annotated[
        Path | None,
        typer.Option(help="Names of the classes, one a line. Default: those that a training left."),
    ] = None,
    opset: Annotated[int, typer.Option(min=18, max=20, help="ONNX opset.")] = 18,
    seed: show.SeedOption = 0,
    without: Annotated[
        str, typer.Option(help="Exact simplifications to leave out, by name, with commas.")
    ] = "",
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure against the dense ViT.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name.")
    ] = False,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Export a model as a bundle, proven equal to PyTorch."""
    options = method_options.parse(chosen, stages)
    try:
        from fgdeploy.export import against_dense
        from fgdeploy.export.export_settings import ExportSettings
        from fgdeploy.export.exporter import default_target, export_bundle
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", "exporting") from None
    source = objects.training_of(run, checkpoint)
    if source is None and not _chose_weights(ctx) and (source := objects.only_training()):
        show.say(f"exporting {source}, the only training here; --weights pretrained for timm's")
    settings = ExportSettings(
        method=method,
        backbone=backbone,
        checkpoint=source,
        weights=weights,
        weights_key=weights_key,
        renames=tuple(rename),
        head=head,
        bits=bits,
        options=options,
        image_size=image_size,
        crop=crop,
        fit_data=fit_data,
        fit_images=fit_images,
        columns=columns,
        logits=logits,
        class_names=class_names,
        opset=opset,
        seed=seed,
        without=frozenset(name.strip() for name in without.split(",") if name.strip()),
    )
    target = default_target(settings) if output is None else output
    done = export_bundle(
        settings, target, overwrite, notify=show.say, progress=show.progress("fitting the head")
    )
    manifest = done.bundle.manifest
    if timed:
        show.say("measuring it against the dense ViT")
    paces = against_dense.measure(done.bundle) if timed else []
    if as_json:
        facts = {"path": str(target), "fingerprint": manifest.fingerprint, "bits": manifest.bits}
        facts |= {"macs": dict(manifest.macs), "parity": dataclasses.asdict(done.parity)}
        facts |= {"against_dense": [dataclasses.asdict(one) for one in paces]}
        show.emit_json({**facts, "weights": dict(manifest.weights)})
    else:
        show.rows([*_rows(manifest, done.parity), *_paces(paces)])
    _warn(manifest, paces)
    if manifest.weights["source"] == "random":
        show.say("random weights: good for trying the way through, not for ranking")
    show.say(f"wrote {target}; next: fgdeploy index add gallery.fgi PHOTOS --bundle {target}")


def _rows(manifest: Manifest, parity: Parity) -> list[tuple[str, str]]:
    macs = manifest.macs
    return [
        ("model", f"{manifest.method} on {manifest.backbone}, {manifest.image_size} px"),
        ("weights", manifest.weights["source"]),
        *((name, show.option(value)) for name, value in manifest.options.items()),
        ("head", f"{manifest.head['kind']}, {manifest.bits} bits"),
        (
            "MACs",
            f"{show.macs(macs['exported'])} exported, {show.macs(macs['published'])} as published, "
            f"{show.macs(macs['dense'])} dense in timm",
        ),
        (
            "parity",
            f"max |hash difference| {parity.max_hash_diff:.1e} to PyTorch, "
            f"{parity.bit_agreement:.2%} of bits equal on {counted(parity.photos, 'image')}",
        ),
    ]


def _paces(paces: Sequence[AgainstDense]) -> list[tuple[str, str]]:
    rows = [
        (
            f"batch {one.batch}",
            f"{one.exported_ms:.2f} ms, dense {one.dense_ms:.2f} ms in ONNX Runtime: "
            f"{one.times:.2f}x as fast",
        )
        for one in paces
    ]
    if len(paces) == 1:
        rows.append(("batch 8", "not measured, as one dense image takes long already"))
    return rows


def _warn(manifest: Manifest, paces: Sequence[AgainstDense]) -> None:
    """Say where the exported graph costs as much as the dense ViT, or more."""
    macs = manifest.macs
    looks = sum(rows.block == 1 for rows in manifest.blocks)
    advice = "reduce more, or deploy the dense model"
    if looks > 1:
        advice = f"it looks at a photo {looks} times, and the dense model once"
    if macs["exported"] >= macs["dense"]:
        show.say(
            f"no cheaper than the dense ViT: {show.macs(macs['exported'])} against "
            f"{show.macs(macs['dense'])} MACs; {advice}"
        )
    for one in paces:
        if one.times < 1:
            show.say(
                f"slower than the dense ViT in ONNX Runtime at batch {one.batch}: "
                f"{one.exported_ms:.2f} against {one.dense_ms:.2f} ms; {advice}"
            )


def _chose_weights(ctx: typer.Context) -> bool:
    """Tell whether weights other than a training's were named on the command line."""
    return any(
        getattr(ctx.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"
        for name in ("weights", "backbone")
    )
