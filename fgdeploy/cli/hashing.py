"""`fgdeploy hash`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.photos import Columns


@lists.takes_list
def hash_photos(
    source: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="A folder, an image, or a CSV (path,class,split)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "codes.npz"
    ),
    bundle: objects.BundleOption = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew; drop what an interrupted run left.")
    ] = False,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Hash photos into an .npz file: codes, paths, labels, bits, fingerprint.

    A run that was interrupted goes on with the same command.
    """
    from fgdeploy.core.errors import DataError
    from fgdeploy.hash_to_file import hash_to_file

    if output.suffix != ".npz" or not output.parent.is_dir():
        raise DataError(f"-o {output}: expected a name ending in .npz in a folder that exists")
    photos = lists.read(source, columns, strict=strict)
    with show.open_hasher(bundle, backend, threads, fallback, batch, columns.bit_depth) as hasher:
        shown = show.progress("hashing")
        run = hash_to_file(hasher, photos, output, source, strict, again, shown, show.say)
        facts = {
            "file": str(output),
            "photos": run.photos,
            "hashed_before": run.earlier,
            "skipped": len(run.skipped),
            "seconds": round(run.seconds, 3),
            "photos_per_s": round(run.per_second, 1),
            "bits": hasher.bits,
            "fingerprint": hasher.fingerprint,
            "engine": hasher.engine.describe(),
        }
    _report(facts, as_json)
    show.report_skipped(run.skipped)


def _report(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.emit_json(facts)
    elif show.manner().csv:
        show.rows(list(facts.items()))
    before = f" ({facts['hashed_before']:,} before)" if facts["hashed_before"] else ""
    show.say(
        f"hashed {counted(facts['photos'], 'photo')}{before} into {facts['bits']}-bit codes in "
        f"{facts['file']} with {facts['engine']}, {facts['photos_per_s']:,}/s, "
        f"{facts['skipped']:,} skipped; next: fgdeploy index import gallery.fgi {facts['file']}"
    )
