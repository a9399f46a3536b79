"""`fgdeploy tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, method_options, objects, show
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.photos import Columns
    from fgdeploy.tuning.tuner import Tuned


@lists.takes_list
def tune(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="PHOTOS",
            help="Labelled photos to judge by: a folder of classes, or a CSV (path,class,split).",
        ),
    ],
    latency: Annotated[
        str, typer.Option(help="Most time of one call: 8ms, 8 or 0.008s.", metavar="TIME")
    ],
    max_drop: Annotated[
        float, typer.Option(help="Most points of mAP to lose against the dense model.")
    ] = 0.5,
    method: Annotated[
        str | None, typer.Option(help="The method. Default: the checkpoint's, else eet.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--checkpoint", metavar="RUN", help="A training's folder, or its weights."),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="Without RUN: a checkpoint's path, pretrained (timm's hub) or random."),
    ] = "pretrained",
    backbone: Annotated[
        str | None,
        typer.Option(help="A timm ViT or DeiT. Default: told from the weights, else the method's."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=8192, help="Input side in pixels. Default: the method's."),
    ] = None,
    chosen: method_options.SetOption = [],  # noqa: B006
    bits: Annotated[
        int | None, typer.Option(min=8, max=512, help="Bits of a code. Default: 64.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Frames of one call.")] = 1,
    engine: Annotated[
        str, typer.Option(help="The engine to be fast in, such as openvino:int8.", metavar="NAME")
    ] = "onnxruntime:fp32",
    images: Annotated[int, typer.Option(min=8, help="Most photos to judge by.")] = 400,
    best: Annotated[
        int, typer.Option(min=1, max=1000, help="Schedules that are judged by all of them.")
    ] = 6,
    train: Annotated[
        bool, typer.Option("--train", help="Train the best few with recipe fast, then judge.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of --train. Default: the recipe's.")
    ] = None,
    threads: show.ThreadsOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")] = Path(
        "tuned.fgd"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name.")
    ] = False,
    seed: show.SeedOption = 0,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Find the schedule that keeps to a latency on this device, or say where pruning would pay."""
    from fgdeploy.cli.bars import bars
    from fgdeploy.tuning.tune_settings import TuneSettings, milliseconds

    if run is not None and weights != "pretrained":
        raise UsageError(f"--checkpoint {run} and --weights {weights} are both weights; give one")
    settings = TuneSettings(
        data=data,
        latency_ms=milliseconds(latency),
        max_drop=max_drop,
        method=method,
        options=method_options.parse(chosen),
        backbone=backbone,
        weights=weights if run is None else str(objects.training_of(run, None)),
        image_size=image_size,
        bits=bits,
        batch=batch,
        engine=engine,
        images=images,
        best=best,
        train=train,
        epochs=epochs,
        threads=threads,
        columns=columns,
        seed=seed,
    )
    try:
        from fgdeploy.tuning.tuner import tune as search
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "train", "tuning") from None
    with bars() as shown:
        done = search(settings, output, overwrite, shown.say, shown.make)
    if as_json:
        show.emit_json(_json(done))
    else:
        _print(done)
    kept = "" if done.run is None else f" and {done.run}"
    show.say(f"wrote {output}{kept}; next: fgdeploy index add gallery.fgi PHOTOS --bundle {output}")


def _print(done: Tuned) -> None:
    one = done.recommended
    show.line(
        f"recommended: {one.schedule}, {one.ms:.2f} ms (dense {done.dense_ms:.2f} ms)"
        + ("" if one.drop is None else f", {one.drop:.2f} points of mAP below dense")
    )
    title = f"schedules, judged by {counted(done.photos, 'photo')}"
    show.rows(
        [
            (
                row.schedule,
                f"{row.predicted_ms:.2f}",
                "-" if row.measured_ms is None else f"{row.measured_ms:.2f}",
                show.macs(row.macs),
                "-" if row.map is None else f"{row.map:.4f}",
                "-" if row.drop is None else f"{row.drop:.2f}",
                "yes" if row.pareto else "",
                row.note,
            )
            for row in done.trials
        ],
        ("schedule", "predicted ms", "measured ms", "MACs", "mAP", "drop", "Pareto", "note"),
        title,
    )
    if done.staircase is None:
        return
    known = done.staircase
    edges = known.stair.edges()
    show.rows(
        [
            (str(rows), f"{attend:.3f}", f"{feed:.3f}", "yes" if rows in edges else "")
            for rows, attend, feed in zip(
                known.stair.rows, known.stair.attend_ms, known.stair.feed_ms, strict=True
            )
        ],
        ("token rows", "attention ms", "MLP ms", "edge"),
        f"staircase of a block, {known.engine}, batch {known.batch}: beside the blocks "
        f"{known.fixed_ms:.2f} ms, a stage {known.step_ms:.3f} ms",
    )


def _json(done: Tuned) -> dict[str, object]:
    return {
        "path": str(done.bundle.path),
        "recommended": done.recommended.to_json(),
        "dense_ms": done.dense_ms,
        "photos": done.photos,
        "trials": [row.to_json() for row in done.trials],
        "staircase": None if done.staircase is None else done.staircase.to_json(),
        "run": None if done.run is None else str(done.run),
    }
