"""`fgdeploy demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show
from fgdeploy.core.errors import MissingDependency
from fgdeploy.demo import EPOCHS


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo writes; replaced if it did.")] = Path(
        "demo"
    ),
    species: Annotated[int, typer.Option(min=2, max=200, help="Sub-species to draw.")] = 24,
    images: Annotated[
        int, typer.Option(min=4, max=10_000, help="Images of each; half to train on.")
    ] = 40,
    epochs: Annotated[
        int, typer.Option(min=1, max=10_000, help="Passes over the training photos.")
    ] = EPOCHS,
    seed: show.SeedOption = 0,
    as_json: show.JsonOption = False,
) -> None:
    """Run the whole way on images that it draws: train, export, index, search, evaluate, parity."""
    try:
        from fgdeploy.demo.tour import run_demo
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "train", "the demo") from None
    from fgdeploy.cli.bars import bars

    with bars() as bar:
        report = run_demo(folder, species, images, epochs, seed, bar.say, bar.make)
    if as_json:
        show.emit_json(report.to_json())
        return
    show.rows(report.steps, ("step", "seconds", "result"))
    header = ("model", "runtime", "mAP", "R@1", "G MACs", "ms/photo")
    show.rows(report.scores, header, title="scores")
    show.line(
        f"chance mAP is about {report.chance:.3f}; trained here on a small ViT that knew other "
        "moths, scored on photos that no training saw"
    )
    show.say(f"everything lies in {folder}; next: fgdeploy inspect {folder}/eet.fgd")
