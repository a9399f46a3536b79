"""`fgdeploy demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show
from fgdeploy.errors import MissingDependency


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes; replaced if it did.")] = Path(
        "demo"
    ),
    species: Annotated[int, typer.Option(help="Sub-species to draw, 2 to 200.")] = 12,
    images: Annotated[int, typer.Option(help="Images of each, 2 or more.")] = 20,
    checkpoint: Annotated[Path | None, typer.Option(help="DeiT-Tiny weights to use.")] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Without --checkpoint: random (ranks poorly), or pretrained (downloads)."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Seed of images and weights.")] = 0,
    as_json: show.JsonOption = False,
) -> None:
    """Run the whole way on images that it draws: export, hash, index, search, evaluate, parity."""
    try:
        import fgdeploy.export.exporter  # noqa: F401
        from fgdeploy.demo import run_demo
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", "the demo") from None
    report = run_demo(folder, species, images, checkpoint, weights, seed, show.say, show.progress)
    if as_json:
        show.emit_json(report.to_json())
        return
    typer.echo(show.table(report.steps, ("step", "seconds", "result")))
    typer.echo("")
    typer.echo(show.table(report.scores, ("model", "mAP", "R@1", "G MACs", "ms/image")))
    typer.echo(f"chance mAP is about {report.chance:.3f}; {report.remark}")
    show.say(f"everything lies in {folder}; next: fgdeploy inspect {folder}/eet.fgd")
