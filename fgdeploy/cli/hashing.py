"""`fgdeploy hash`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    *,
    columns: Columns,
) -> None:
    """Hash photos into an .npz file: codes, paths, labels, bits, fingerprint."""
    from fgdeploy.core.codes import CodeFile
    from fgdeploy.core.errors import DataError
    from fgdeploy.hasher import hash_all

    if output.suffix != ".npz" or not output.parent.is_dir():
        raise DataError(f"-o {output}: expected a name ending in .npz in a folder that exists")
    photos = lists.read(source, columns, strict=strict)
    with show.open_hasher(bundle, backend, threads, fallback, batch, columns.bit_depth) as hasher:
        run = hash_all(hasher, photos, strict, show.progress("hashing"))
        CodeFile(
            run.outputs.code,
            [photo.path.as_posix() for photo in run.photos],
            [photo.label or "" for photo in run.photos],
            hasher.bits,
            hasher.fingerprint,
        ).save(output)
        show.say(
            f"hashed {counted(len(run.photos), 'photo')} into {hasher.bits}-bit codes in {output} "
            f"with {hasher.engine.describe()}; next: fgdeploy index import gallery.fgi {output}"
        )
    show.report_skipped(run.skipped)
