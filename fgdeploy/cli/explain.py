"""`fgdeploy explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.explaining import Explanation, Looker
    from fgdeploy.photos import Columns, Photo


@lists.takes_list
def explain(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTOS", help="Images, folders, or CSVs (path,class,split)."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "--bundle",
            "-b",
            help="A bundle, or a training's folder. Default: the one *.fgd in this folder.",
            metavar="BUNDLE",
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            help="NAME.png for one photo, NAME.html for any number. "
            "Default: explained.png, or explained.html for several.",
            metavar="FILE",
        ),
    ] = None,
    way: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="tokens, maps or rollout. "
            "Default: tokens and maps where the model has them, else rollout.",
            metavar="WAY",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="What the bundle was exported from, where its graph says too little."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Most photos to explain, spread over classes.")
    ] = 24,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    *,
    columns: Columns,
) -> None:
    """Show what the model looked at in photos, as a PNG or an HTML page.

    Patches that stay in each stage of a token reduction, and which of them share a row; maps and
    boxes that the model gives; attention rollout for all others. A bundle's graph is asked where
    its outputs say it, else its PyTorch model, for which --checkpoint names the weights.
    """
    from fgdeploy.explaining import Opening, open_looker
    from fgdeploy.photos import skipped_of

    opening = Opening(way, checkpoint, backend, threads, fallback)
    listings = [lists.read(source, columns, strict=strict) for source in sources]
    photos = [photo for listing in listings for photo in listing]
    skipped = [one for listing in listings for one in skipped_of(listing)]
    target = _target(target, photos)
    chosen = _chosen(photos, images)
    path = objects.bundle_of(None, model, "name one with --model")
    with open_looker(path, opening, show.say) as looker:
        _write(target, looker, chosen, skipped, strict)
        show.say(f"wrote {target}: {looker.describe()}")
    show.report_skipped(skipped)


def _target(named: Path | None, photos: Sequence[Photo]) -> Path:
    """Return the file to write. Raises UsageError for one that cannot hold the answer."""
    from fgdeploy.core.errors import UsageError

    several = len(photos) > 1
    target = named or Path("explained.html" if several else "explained.png")
    ending = target.suffix.lower()
    if ending not in (".png", ".html"):
        raise UsageError(f"-o {target}: expected a name that ends in .png or .html")
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"-o {target}: expected a file name in a folder that exists")
    if ending == ".png" and several:
        raise UsageError(
            f"-o {target}: a PNG shows one photo, and there are {counted(len(photos), 'photo')}; "
            f"give {target.with_suffix('.html')}"
        )
    if target.exists() and any(_same(photo.path, target) for photo in photos):
        raise UsageError(f"-o {target} is the photo itself; give another name")
    return target


def _same(photo: Path, target: Path) -> bool:
    return photo.exists() and photo.samefile(target)


def _chosen(photos: Sequence[Photo], most: int) -> list[Photo]:
    """Return so many photos in the order of the list, and say where some are left out."""
    from fgdeploy.photos import spread

    if len(photos) <= most:
        return list(photos)
    show.say(f"{most} of {counted(len(photos), 'photo')}; --images takes more")
    places = {id(photo): place for place, photo in enumerate(photos)}
    return sorted(spread(photos, most), key=lambda photo: places[id(photo)])


def _write(
    target: Path, looker: Looker, photos: Sequence[Photo], skipped: list[str], strict: bool
) -> None:
    from fgdeploy.core.errors import DataError
    from fgdeploy.explaining import write_page

    before = len(skipped)
    found = _explained(looker, photos, skipped, strict)
    first = next(found, None)
    if first is None:
        if not photos:
            raise DataError("there are no photos to explain; check the list")
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[before]}"
        )
    if target.suffix.lower() == ".png":
        first[0].save(target)
        return
    write_page(target, _led_by(first, found), looker.describe())


def _led_by(
    first: tuple[Explanation, str | None], others: Iterator[tuple[Explanation, str | None]]
) -> Iterator[tuple[Explanation, str | None]]:
    yield first
    yield from others


def _explained(
    looker: Looker, photos: Sequence[Photo], skipped: list[str], strict: bool
) -> Iterator[tuple[Explanation, str | None]]:
    """Yield photos explained, with their labels; enter in `skipped` why others are not."""
    from fgdeploy.explaining import Explanation
    from fgdeploy.photos import batches

    progress = show.progress("explaining")
    for group, frames in batches(photos, looker.preprocess, 4, skipped, strict, progress):
        for photo, frame, seen in zip(group, frames, looker.look(frames), strict=True):
            yield Explanation(str(photo.path), frame, seen), photo.label
