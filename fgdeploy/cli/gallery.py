"""`fgdeploy index ...` and `fgdeploy search`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build and keep a gallery index."
)

GalleryArgument = Annotated[Path, typer.Argument(help="The index, NAME.fgi.")]


@app.command("add")
def add(
    gallery: GalleryArgument,
    source: Annotated[
        Path, typer.Argument(help="A folder, an image, or a CSV (path,class,split).")
    ],
    bundle: show.BundleOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV (path,class) of labels. Default: the name of a photo's folder."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of a CSV.")] = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
) -> None:
    """Hash photos into an index, which is created if it is not there."""
    from fgdeploy.gallery import add_photos, open_or_create
    from fgdeploy.photos import of_split, read

    photos = read(source, labels)
    if split is not None:
        photos = of_split(photos, split)
    with show.open_hasher(bundle, backend, threads, fallback, batch) as hasher:
        index, created = open_or_create(gallery, hasher)
        with index:
            try:
                report = add_photos(index, hasher, photos, strict, show.progress("adding"))
            finally:
                gone = created and index.delete_if_empty()  # leave nothing behind
            total = 0 if gone else len(index)
        show.say(
            f"added {report.added} photos, {report.known} were there already"
            + (f" ({report.relabelled} with a new label)" if report.relabelled else "")
            + f", {total} in {gallery}"
            + ("" if total == 0 else f"; next: fgdeploy search PHOTO --index {gallery}")
        )
    show.report_skipped(report.skipped)


@app.command("remove")
def remove(
    gallery: GalleryArgument,
    items: Annotated[list[str], typer.Argument(help="Ids or photo paths (./7 for a file 7).")],
) -> None:
    """Remove items by id or path, all or none."""
    from fgdeploy.gallery import find_id
    from fgdeploy.retrieval import Index

    with Index.open(gallery) as index:
        removed = index.remove([find_id(index, item) for item in dict.fromkeys(items)])
        show.say(f"removed {removed} items, {len(index)} left in {gallery}")


@app.command("list")
def list_items(gallery: GalleryArgument, as_json: show.JsonOption = False) -> None:
    """List the items: id, label, path, time and code."""
    from fgdeploy.retrieval import Index

    with Index.open(gallery) as index:
        for item in index.items():
            if as_json:
                show.emit_json({**dataclasses.asdict(item), "code": item.code.hex()})
            else:
                cells = (str(item.id), item.label or "", item.path or "", item.time)
                typer.echo("\t".join(map(show.plain, cells)))


@app.command("verify")
def verify(gallery: GalleryArgument, as_json: show.JsonOption = False) -> None:
    """Check the database and every item; exit 1 if something is wrong."""
    from fgdeploy.retrieval import Index

    with Index.open(gallery) as index:
        problems = index.verify()
        if as_json:
            show.emit_json(
                {
                    "items": len(index),
                    "bits": index.bits,
                    "fingerprint": index.fingerprint,
                    "problems": [dataclasses.asdict(problem) for problem in problems],
                }
            )
        else:
            for problem in problems:
                typer.echo(f"{'error' if problem.fatal else 'note'}: {problem.what}")
            state = "damaged" if any(problem.fatal for problem in problems) else "sound"
            typer.echo(f"{gallery}: {len(index)} items of {index.bits} bits, {state}")
    if any(problem.fatal for problem in problems):
        raise typer.Exit(1)


def search(
    query: Annotated[list[Path], typer.Argument(help="Photos to look for.")],
    gallery: Annotated[Path, typer.Option("--index", "-i", help="The index, NAME.fgi.")],
    bundle: show.BundleOption = None,
    k: Annotated[int, typer.Option("-k", help="How many answers.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each query.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet to this file.")] = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    fallback: show.FallbackOption = False,
) -> None:
    """Rank the photos of an index by Hamming distance to a query photo."""
    from fgdeploy.errors import UsageError
    from fgdeploy.retrieval import Index

    if k < 1:
        raise UsageError(f"-k {k}: ask for at least one answer")
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UsageError(f"--html {html}: expected a file name in a folder that exists")
    with (
        Index.open(gallery) as index,
        show.open_hasher(bundle, backend, threads, fallback) as hasher,
    ):
        index.require(hasher.fingerprint, hasher.bits)
        answers = index.search(hasher.encode(query), k)
    results = [
        {"query": str(path), "hits": [dataclasses.asdict(hit) for hit in hits]}
        for path, hits in zip(query, answers, strict=True)
    ]
    if html is not None:
        from fgdeploy.contact_sheet import write_contact_sheet

        write_contact_sheet(html, list(zip(query, answers, strict=True)), hasher.bits)
        show.say(f"wrote {html}")
    for path, result, hits in zip(query, results, answers, strict=True):
        if as_json:
            show.emit_json(result)
        elif html is None:
            typer.echo(show.plain(str(path)))
            rows = [(hit.rank, hit.distance, hit.id, hit.label or "", hit.path) for hit in hits]
            typer.echo(show.table(rows, ("rank", "distance", "id", "label", "path")))
