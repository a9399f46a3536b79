"""`fgdeploy index embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.retrieval.store.embeddings import EmbeddingStats

NONE = "none"


def check_kind(kind: str | None, *others: str) -> None:
    """Refuse a kind of embeddings that there is not, before anything is opened."""
    from fgdeploy.core.errors import UsageError
    from fgdeploy.retrieval.store.embedding_file import KINDS

    expected = (*KINDS, *others)
    if kind not in (None, *expected):
        raise UsageError(f"--embeddings {kind}: expected {' or '.join(expected)}")


def embed(
    gallery: objects.IndexArgument = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="float: 4 bytes a value. int8: 1 byte. none: keep none any more. Default: as "
            "the index does.",
            metavar="KIND",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", "-b", help="The bundle. Default: the one of the index.", metavar="BUNDLE"
        ),
    ] = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    bit_depth: lists.BitDepthOption = None,
) -> None:
    """Make the embeddings that items lack, from their photos, for `search --rerank embedding`.

    Damaged files of embeddings are given up and made again. Another kind makes all anew.
    """
    from fgdeploy.gallery import embed_items
    from fgdeploy.retrieval import Index

    check_kind(embeddings, NONE)
    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        if embeddings == NONE:
            kept = index.embeddings.drop()
            index.compact()
            show.say(f"{gallery} keeps no embeddings " + ("any more" if kept else "and kept none"))
            return
        bundle = objects.bundle_for(index, bundle)
        with show.open_hasher(bundle, backend, threads, fallback, batch, bit_depth) as hasher:
            told = show.progress("embedding")
            report = embed_items(index, hasher, embeddings, strict, told)
        for reason in report.mended:
            show.say(f"{gallery}: {reason}; given up")
        show.say(
            f"embedded {counted(report.embedded, 'photo')}, {report.known} there already, "
            f"{len(index)} in {gallery}; next: fgdeploy search PHOTO --index {gallery} "
            "--rerank embedding"
        )
    show.report_skipped(report.skipped)


def in_words(found: EmbeddingStats | None) -> str:
    """Return a line about the embeddings of an index."""
    if found is None:
        return "none; `index embed` makes them from the photos"
    rows, size = (sum(file[part] for file in found.files) for part in (1, 2))
    return (
        f"{found.kind}, {found.width} values ({found.row_bytes:,} bytes an item): "
        f"{counted(rows, 'row')} in {counted(len(found.files), 'file')} ({size:,} bytes)"
    )
