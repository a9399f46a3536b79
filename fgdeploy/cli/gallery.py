"""`fgdeploy index ...`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import embed, lists, migrate, objects, push, show, threshold
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.gallery import AddReport
    from fgdeploy.photos import Columns
    from fgdeploy.retrieval import Index, Item, Problem, Stats

_MANY_DEAD = 0.2  # of the items: from here on compacting is worth a word

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build and keep a gallery index."
)

GalleryArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="The index, NAME.fgi.")]


@app.command("add")
@lists.takes_list
def add(
    gallery: GalleryArgument,
    source: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="A folder, an image, or a CSV (path,class,split)."),
    ],
    bundle: objects.BundleOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV (path,class) of labels. Default: the name of a photo's folder."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split of a CSV.")] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="Keep embeddings too, for `search --rerank embedding`: float or int8. Default: "
            "as the index does.",
            metavar="KIND",
        ),
    ] = None,
    keep_thumbnails: Annotated[
        bool,
        typer.Option(
            "--keep-thumbnails",
            help="Keep small pictures too, for `index migrate` where photos go. Default: as the "
            "index does.",
        ),
    ] = False,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    *,
    columns: Columns,
) -> None:
    """Hash photos into an index, which is created if it is not there."""
    from fgdeploy.core.errors import UsageError
    from fgdeploy.gallery import add_photos, fill
    from fgdeploy.photos import of_split

    objects.refuse_swapped(gallery, source)
    embed.check_kind(embeddings)
    listing = lists.read(source, columns, labels, strict)
    photos = listing if split is None else of_split(listing, split)
    told = show.progress("adding")
    bundle = bundle or objects.bundle_at(gallery)
    with show.open_hasher(bundle, backend, threads, fallback, batch, columns.bit_depth) as hasher:

        def work(index: Index) -> AddReport:
            kept = index.embeddings.form
            if embeddings is not None and kept is not None and kept.kind != embeddings:
                raise UsageError(
                    f"--embeddings {embeddings}: {gallery} keeps them as {kept.kind}; to change "
                    f"that: fgdeploy index embed {gallery} --embeddings {embeddings}"
                )
            if embeddings is not None and kept is None:
                index.embeddings.keep(embeddings, hasher.embedding_width)
                if there := len(index):
                    show.say(
                        f"{counted(there, 'item')} of {gallery} without embeddings so far; make "
                        f"them with: fgdeploy index embed {gallery}"
                    )
            if keep_thumbnails:
                index.thumbnails.keep()
            report = add_photos(index, hasher, photos, strict, told)
            if len(index):
                index.remember_bundle(hasher.bundle.path)
            return report

        report, total = fill(gallery, hasher, work)
        show.say(
            f"added {counted(report.added, 'photo')}, {report.known} there already"
            + (f" ({report.relabelled} with a new label)" if report.relabelled else "")
            + (f", {report.moved} had moved" if report.moved else "")
            + (f", {counted(report.copies, 'copy')} left out" if report.copies else "")
            + f", {total} in {gallery}"
            + ("" if total == 0 else f"; next: fgdeploy search PHOTO --index {gallery}")
        )
    show.report_skipped([*listing.skipped, *report.skipped])


app.command("embed")(embed.embed)
app.command("threshold")(threshold.threshold)
app.command("migrate")(migrate.migrate)
app.command("push")(push.push)


@app.command("remove")
def remove(
    gallery: GalleryArgument,
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="ITEM", help="Ids or photo paths (./7 for a file 7)."),
    ] = None,
    where: show.WhereOption = None,
) -> None:
    """Remove items by id, path or --where, all or none."""
    from fgdeploy.core.errors import UsageError
    from fgdeploy.gallery import find_id
    from fgdeploy.retrieval import Index

    if bool(items) == (where is not None):
        raise UsageError("name the items to remove, or give --where, one of the two")
    with Index.open(gallery) as index:
        if where is not None:
            ids = index.matching(where).tolist()
        else:
            ids = [find_id(index, item) for item in dict.fromkeys(items or [])]
        removed = index.remove(ids)
        stats = index.stats()
        many = stats.dead > _MANY_DEAD * stats.items
        show.say(
            f"removed {counted(removed, 'item')}, {stats.items} left in {gallery}"
            + (f"; next: fgdeploy index compact {gallery}" if many else "")
        )


@app.command("prune")
def prune(
    gallery: objects.IndexArgument = None,
    where: show.WhereOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the items that would go, and change nothing.")
    ] = False,
    missing_folders: Annotated[
        bool,
        typer.Option(
            "--missing-folders",
            help="Also items whose whole folder is gone, as of a disk that is not mounted.",
        ),
    ] = False,
) -> None:
    """Remove the items whose photo is no longer at its path, all or none.

    Where a whole folder of photos is gone nothing is removed unless told: its disk may not be
    mounted.
    """
    from fgdeploy.gallery import gone
    from fgdeploy.gallery import prune as prune_items
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        found = gone(index, where)
        if dry_run:
            _stream_items(found.items)
            unsure = f" ({len(found.unsure)} with their whole folder)" if found.unsure else ""
            show.say(
                f"would remove {counted(len(found.items), 'item')} of {len(index)} from "
                f"{gallery}{unsure}; nothing was changed"
            )
            return
        removed = prune_items(index, found, missing_folders)
        show.say(f"removed {counted(removed, 'item')}, {len(index)} left in {gallery}")


@app.command("list")
def list_items(
    gallery: objects.IndexArgument = None,
    where: show.WhereOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", help="At most so many. Default: all.")
    ] = None,
    as_json: show.JsonOption = False,
) -> None:
    """List the items in order of id: id, label, path and time."""
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        found = islice(index.items(where), limit)
        if as_json:
            for item in show.while_heard(found):
                show.emit_json(_as_json(item))
        else:
            _stream_items(found)


def _stream_items(items: Iterable[Item]) -> None:
    cells = ((item.id, item.label or "", item.path or "", item.time) for item in items)
    show.stream(cells, ("id", "label", "path", "time"))


def _as_json(item: Item) -> dict[str, Any]:
    own = None if item.json is None else json.loads(item.json)
    return {**dataclasses.asdict(item), "code": item.code.hex(), "json": own}


@app.command("compact")
def compact(
    gallery: objects.IndexArgument = None,
    multi_index: Annotated[
        bool | None,
        typer.Option(
            "--multi-index/--no-multi-index",
            help="Look-up tables for few queries on millions of items. Default: as before.",
        ),
    ] = None,
) -> None:
    """Write all codes anew as one file, so that search is fast."""
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        before = index.stats()
        index.compact(show.progress("compacting"), multi_index)
        show.say(
            f"compacted {gallery}: {_segments(before)} before, {_segments(index.stats())} now; "
            f"next: fgdeploy search PHOTO --index {gallery}"
        )


def _thumbnails(stats: Stats) -> str:
    """Return a line about the thumbnails of an index."""
    if (found := stats.thumbnails) is None:
        return "none; `index add --keep-thumbnails` keeps them"
    return f"{found.count:,} ({found.bytes:,} bytes)"


def _segments(stats: Stats) -> str:
    """Return how many derived files there are, and how large they are together."""
    count, rows, size = len(stats.segments), 0, 0
    for _, more_rows, more_bytes in stats.segments:
        rows, size = rows + more_rows, size + more_bytes
    return (
        f"{counted(count, 'segment')} of {counted(rows, 'row')} ({size:,} bytes)"
        if count
        else "no segments"
    )


@app.command("verify")
def verify(gallery: objects.IndexArgument = None, as_json: show.JsonOption = False) -> None:
    """Check all of an index; exit 1 if it is damaged.

    That is its database, every item and every derived file; derived files that are damaged are made
    anew from the database.
    """
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        problems = index.verify(show.progress("verifying"))
        damaged = any(problem.fatal for problem in problems)
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
            state = "damaged; restore a copy, or build it again" if damaged else "intact"
            show.stream(map(_row, problems), ("kind", "what"), between=": ")
            items = counted(len(index), "item")
            show.line(f"{gallery}: {items} of {index.bits} bits, {state}")
    if damaged:
        raise typer.Exit(1)


def _row(problem: Problem) -> tuple[str, str]:
    return ("error" if problem.fatal else "repaired" if problem.repaired else "note", problem.what)


@app.command("stats")
def stats(gallery: objects.IndexArgument = None, as_json: show.JsonOption = False) -> None:
    """Show what an index holds and where its codes lie."""
    from fgdeploy.gallery import threshold as calibrating
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        found, bundle, measured = index.stats(), index.bundle, calibrating.of(index)
    built = None if bundle is None else str(bundle)
    if as_json:
        facts = dataclasses.asdict(found)
        facts["threshold"] = calibrating.as_json(measured, found.items)
        show.emit_json({"path": str(gallery), "bundle": built, **facts})
        return
    rows = [
        ("items", f"{found.items:,}"),
        ("labels", f"{found.labels:,}"),
        ("times", f"{found.first_time} to {found.last_time}" if found.items else "none"),
        ("code", f"{found.bits} bits of model {found.fingerprint[:16]}"),
        ("bundle", built or "unknown; the next `index add` notes it"),
        ("database", f"{found.database_bytes:,} bytes, schema {found.schema_version}"),
        ("segments", _segments(found)),
        ("tail", f"{counted(found.tail, 'row')} in no segment yet"),
        ("dead", f"{counted(found.dead, 'row')} removed or replaced since"),
        ("embeddings", embed.in_words(found.embeddings)),
        ("thumbnails", _thumbnails(found)),
        ("threshold", threshold.in_words(measured, found.items)),
        ("version", f"{counted(found.version, 'transaction')}"),
        ("search", found.kernel),
    ]
    show.rows(rows)


@app.command("export")
def export_index(
    gallery: GalleryArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="NAME.jsonl: all. NAME.npz: no ids, no times.")
    ],
) -> None:
    """Write all items to a .jsonl or .npz file."""
    from fgdeploy.retrieval import Index
    from fgdeploy.retrieval.store.transfer import export_items

    with Index.open(gallery) as index:
        count = export_items(index, target, show.progress("exporting"))
        kept, pictures = index.embeddings.form is not None, index.thumbnails.kept
    lost = target.suffix.lower() == ".npz"
    show.say(
        f"exported {counted(count, 'item')} to {target}"
        + (", without ids, times, sha256 and json (.jsonl keeps them)" if lost else "")
        + (", without embeddings (`index embed` makes them again)" if kept else "")
        + (", without thumbnails" if pictures else "")
        + f"; next: fgdeploy index import OTHER.fgi {target}"
    )


@app.command("import")
def import_index(
    gallery: GalleryArgument,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `index export` or `hash` wrote.")
    ],
) -> None:
    """Add the items of a .jsonl or .npz file.

    The index is created if it is not there. Importing a file again changes nothing.
    """
    from fgdeploy.gallery import fill
    from fgdeploy.retrieval.store.transfer import import_items, open_export

    told = show.progress("importing")
    with open_export(source) as incoming:
        added, total = fill(gallery, incoming, lambda index: import_items(index, incoming, told))
        show.say(
            f"imported {counted(added.total, 'item')}: {added.new} new, {added.changed} changed, "
            f"{added.known} there already, {total} in {gallery}"
            + ("" if total == 0 else f"; next: fgdeploy index list {gallery}")
        )
