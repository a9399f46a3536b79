"""`fgdeploy classify`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.classifying import Guess
    from fgdeploy.core.errors import ImageError
    from fgdeploy.hasher import Hasher
    from fgdeploy.photos import Columns, Photo

_HEADER = ("rank", "probability", "number", "class")


@lists.takes_list
def classify(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTOS", help="Images, folders, or CSVs (path,class,split)."),
    ],
    bundle: objects.BundleOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many classes for each photo.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each photo.")
    ] = False,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    *,
    columns: Columns,
) -> None:
    """Name the most probable classes of photos, where the bundle has class logits.

    Such a bundle is made by `fgdeploy export --logits`. Probabilities are the softmax over all
    classes; equal ones stand by the number of the class.
    """
    from fgdeploy.classifying import check
    from fgdeploy.photos import skipped_of

    listings = [lists.read(source, columns, strict=strict) for source in sources]
    photos = [photo for listing in listings for photo in listing]
    skipped = [one for listing in listings for one in skipped_of(listing)]
    with show.open_hasher(bundle, backend, threads, fallback, batch, columns.bit_depth) as hasher:
        check(hasher.bundle, k)
        _show(show.while_heard(_answers(hasher, photos, k, strict, skipped)), as_json)
    show.report_skipped(skipped)


def _answers(
    hasher: Hasher, photos: Sequence[Photo], k: int, strict: bool, skipped: list[str]
) -> Iterator[tuple[Photo, Sequence[Guess]]]:
    """Yield photos with their classes as they come; enter in `skipped` why others do not.

    Raises ImageError if `strict`, DataError if no photo can be read.
    """
    from fgdeploy.classifying import guesses
    from fgdeploy.core.errors import DataError

    def skip(position: int, error: ImageError) -> None:
        skipped.append(str(error))

    before, told = len(skipped), False
    # On a terminal the answers themselves show how far it is.
    progress = show.progress("classifying") if show.terminal_width() is None else None
    for hashed in hasher.stream((p.path for p in photos), on_error=None if strict else skip):
        found = guesses(hasher.bundle, hashed.outputs, k)
        for position, answer in zip(hashed.positions, found, strict=True):
            told = True
            yield photos[position], answer
        if progress is not None:
            progress(hashed.positions[-1] + 1, len(photos))
    if not told:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[before]}"
        )


def _show(answers: Iterator[tuple[Photo, Sequence[Guess]]], as_json: bool) -> None:
    if as_json:
        for photo, found in answers:
            show.emit_json(_as_json(photo, found))
    elif show.manner().csv:
        rows = ((photo.path, *row) for photo, found in answers for row in _rows(found))
        show.stream(rows, ("photo", *_HEADER))
    else:
        for photo, found in answers:
            show.line(str(photo.path))
            show.rows(_rows(found), _HEADER)


def _as_json(photo: Photo, found: Sequence[Guess]) -> dict[str, Any]:
    label = {} if photo.label is None else {"label": photo.label}
    guesses = [dataclasses.asdict(guess) for guess in found]
    return {"photo": str(photo.path), **label, "classes": guesses}


def _rows(found: Sequence[Guess]) -> list[tuple[object, ...]]:
    return [(one.rank, f"{one.probability:.4f}", one.number, one.name) for one in found]
