"""`fgdeploy boxes`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, show
from fgdeploy.core.errors import MissingDependency
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.photos import Columns


@lists.takes_list
def boxes(
    source: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="A folder, an image, or a CSV (path,class,split)."),
    ],
    detector: Annotated[
        str,
        typer.Option(
            help="A detector of transformers: a folder that it saved, or a name on its hub."
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(help="What the object is, such as bird. Default: whatever is found."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "boxes.csv"
    ),
    threshold: Annotated[float, typer.Option(help="Least score of a box, 0 to 1.")] = 0.25,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Photos at once.")] = 8,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of that name.")
    ] = False,
    strict: show.StrictOption = False,
    *,
    columns: Columns,
) -> None:
    """Find the object of each photo with a detector, for `train --boxes`."""
    try:
        from fgdeploy.training import detecting
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "detect", "finding objects") from None
    wanted = detecting.Wanted(detector, prompt, threshold)
    photos = lists.read(source, columns, strict=strict)
    try:
        done = detecting.detect(
            photos, source, wanted, output, batch, resume, overwrite, show.progress("detecting")
        )
    except KeyboardInterrupt:
        if detecting.part_of(output).is_file():
            show.say("what is done is kept; go on with the same command and --resume")
        raise
    show.say(
        f"wrote {output}: {counted(done.boxes, 'photo')} with a box, {done.without} without; next: "
        f"fgdeploy train {source} --recipe paper --boxes {output}"
    )
    show.report_skipped(list(done.skipped))
