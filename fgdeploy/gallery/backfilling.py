"""Embeddings for items that have none: made again from their photos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from fgdeploy.bundle import sha256
from fgdeploy.core.errors import DataError, ImageError, IndexStoreError, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.hasher import Hasher
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.embedding_file import RowFormat

_AT_ONCE = 256  # photos in a transaction


@dataclass
class EmbedReport:
    """What became of items: embedded now, or before; skipped, with reasons. mended: what was wrong
    with files of embeddings that were given up."""

    embedded: int = 0
    known: int = 0
    mended: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def require_width(index: Index, hasher: Hasher) -> bool:
    """Return whether an index keeps embeddings, and refuse those that would be of another width.

    Raises IndexStoreError, BundleError if the bundle gives none.
    """
    form = index.embeddings.form
    if form is not None and form.width != hasher.embedding_width:
        raise IndexStoreError(
            f"{index.path} keeps embeddings of {form.width} values, the bundle gives "
            f"{hasher.embedding_width}; use the bundle that built the index"
        )
    return form is not None


def embed_items(
    index: Index,
    hasher: Hasher,
    kind: str | None = None,
    strict: bool = False,
    progress: Progress = no_progress,
) -> EmbedReport:
    """Make the embeddings that items of an index lack, from the photos at their paths.

    kind: "float" or "int8", by default as the index keeps them; another one than before makes all
    anew. Damaged files are given up first. An item whose photo is gone or has changed is named in
    the report, or raises DataError if `strict`. Raises IndexStoreError if the index is of another
    model, UsageError if it keeps none and no kind is given.
    """
    index.require(hasher.fingerprint, hasher.bits)
    before: RowFormat | None = index.embeddings.form
    if kind is None and before is None:
        raise UsageError(f"{index.path} keeps no embeddings; say how: --embeddings float or int8")
    if kind is not None:
        index.embeddings.keep(kind, hasher.embedding_width)
    require_width(index, hasher)
    report = EmbedReport(mended=index.embeddings.mend())
    source, total, done = index.items(), len(index), 0
    while part := list(islice(source, _AT_ONCE)):
        there = index.embeddings.has(part)
        report.known += int(there.sum())
        lacking = [item for item, has in zip(part, there.tolist(), strict=True) if not has]
        _embed(index, hasher, list(_usable(lacking, strict, report)), strict, report)
        done += len(part)
        progress(done, max(total, done))
    return report


def _usable(items: Sequence[Item], strict: bool, report: EmbedReport) -> Iterator[Item]:
    """Yield the items whose photo is as it was when it was added."""
    for item in items:
        if (why := _unlike(item)) is None:
            yield item
        elif strict:
            raise DataError(f"{why}; nothing after it was embedded")
        else:
            report.skipped.append(why)


def _unlike(item: Item) -> str | None:
    """Return why an item's photo cannot be taken, None if it can."""
    if item.path is None or "://" in item.path:
        return f"item {item.id}: no photo on this disk"
    if not os.path.isfile(item.path):
        return f"{item.path}: no longer there"
    try:
        same = not item.sha256 or sha256(Path(item.path)) == item.sha256
    except OSError as error:
        return f"{item.path}: cannot be read ({error.strerror})"
    return None if same else f"{item.path}: another photo by now; add it with: fgdeploy index add"


def _embed(
    index: Index, hasher: Hasher, items: Sequence[Item], strict: bool, report: EmbedReport
) -> None:
    def skip(position: int, error: ImageError) -> None:
        report.skipped.append(str(error))

    kept, rows = list[Item](), []
    paths = (item.path or "" for item in items)
    for hashed in hasher.stream(paths, on_error=None if strict else skip):
        if hashed.outputs.embedding is not None:
            kept += [items[position] for position in hashed.positions]
            rows.append(hashed.outputs.embedding)
    if kept:
        index.embeddings.put(kept, np.concatenate(rows))
        report.embedded += len(kept)
