"""`fgdeploy demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show
from fgdeploy.core.errors import MissingDependency


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes; replaced if it did.")] = Path(
        "demo"
    ),
    species: Annotated[int, typer.Option(help="Sub-species to draw, 2 to 200.")] = 24,
    images: Annotated[int, typer.Option(help="Images of each, 4 or more; half to train on.")] = 40,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training photos.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of images and weights.")] = 0,
    as_json: show.JsonOption = False,
) -> None:
    """Run the whole way on images that it draws: train, export, index, search, evaluate, parity."""
    try:
        from fgdeploy.demo.tour import EPOCHS, run_demo
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "train", "the demo") from None
    from fgdeploy.cli.bars import bars

    with bars() as bar:
        report = run_demo(
            folder, species, images, EPOCHS if epochs is None else epochs, seed, bar.say, bar.make
        )
    if as_json:
        show.emit_json(report.to_json())
        return
    typer.echo(show.table(report.steps, ("step", "seconds", "result")))
    typer.echo("")
    typer.echo(show.table(report.scores, ("model", "runtime", "mAP", "R@1", "G MACs", "ms/photo")))
    typer.echo(
        f"chance mAP is about {report.chance:.3f}; trained here on a small ViT that knew other "
        "moths, scored on photos that no training saw"
    )
    show.say(f"everything lies in {folder}; next: fgdeploy inspect {folder}/eet.fgd")
