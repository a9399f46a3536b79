"""Lists of photos: the options of every command that takes one, and reading what it names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import show

if TYPE_CHECKING:
    from fgdeploy.photos import Columns, Listing

BitDepthOption = Annotated[
    int | None,
    typer.Option(
        "--bit-depth",
        min=8,
        max=16,
        help="Bits that count in 16-bit photos, such as 12. Default: 16.",
    ),
]
LeaksOption = Annotated[
    bool,
    typer.Option("--allow-leaks", help="Go on where the same photo is in two splits."),
]
_NAMES = {
    "path_column": ("path", "A list's column of paths, in its header."),
    "label_column": ("class", "A list's column of classes."),
    "split_column": (None, "A list's column of splits. Default: split, if it is there."),
}


def takes_list(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what a list cannot: names of columns, depth of pixels.

    They come to it together, as its argument `columns`.
    """
    # Columns is imported for the type checker alone, as help must come at once
    known = inspect.signature(command, locals={"Columns": object}, eval_str=True).parameters
    named = [one for name, one in known.items() if name != "columns"]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[
                str if default else str | None,
                typer.Option(f"--{name.replace('_', '-')}", help=help_, metavar="NAME"),
            ],
        )
        for name, (default, help_) in _NAMES.items()
    ]
    added.append(
        inspect.Parameter(
            "bit_depth", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=BitDepthOption
        )
    )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        from fgdeploy.photos import Columns

        columns = Columns(*(given.pop(one.name) for one in added))
        command(**given, columns=columns)

    del run.__wrapped__  # its signature is another
    parameters = [*named, *added]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def read(
    source: Path, columns: Columns, labels: Path | None = None, strict: bool = False
) -> Listing:
    """List the photos of a folder, an image or a CSV; say which a list holds under two classes."""
    from fgdeploy.photos import find_repeats, read_csv
    from fgdeploy.photos import read as read_photos

    photos = read_photos(source, labels, columns, strict)
    listed = photos if labels is None else read_csv(labels, source, columns)
    if said := find_repeats(listed, contents=False).of_labels():
        show.say(f"warning: {said}")
    return photos
