"""What is asked of an index: searches, pages of items, items added and removed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from fgdeploy.bundle import Manifest
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import is_utf8, shown
from fgdeploy.engines import Outputs
from fgdeploy.gallery import Query
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Hit, Index, Item
from fgdeploy.retrieval.store.items import utc
from fgdeploy.serve.refusals import Refusal

TEXT = 2000  # characters of a label, a URI or an expression


@dataclass(frozen=True)
class HashedUpload:
    """An image's outputs, each of one row, and the manifest of the model that gave them.

    latency: seconds by stage; together: frames in its batch.
    """

    outputs: Outputs
    model: Manifest
    latency: dict[str, float]
    together: int

    @property
    def code(self) -> bytes:
        """The packed code."""
        return bytes(self.outputs.code[0])


@dataclass(frozen=True)
class Asked:
    """What is searched for: the k nearest, within `radius` bits where given, of those that pass.

    label: their label; where: an SQL expression that holds for them; since, until: their time is
    that or later, and before that (ISO 8601, UTC where no zone is given). full: with `Details`.
    """

    k: int = 10
    radius: int | None = None
    label: str | None = None
    where: str | None = None
    since: str | None = None
    until: str | None = None
    full: bool = False


@dataclass(frozen=True)
class Details:
    """What more is said of answers. items: by id; one that was removed meanwhile is not among them.

    pictured: the ids of those that have a thumbnail.
    """

    items: Mapping[int, Item]
    pictured: AbstractSet[int]


@dataclass(frozen=True)
class Page:
    """Items in order of id, and the ids of those that have a thumbnail where that was asked for."""

    items: list[Item]
    pictured: AbstractSet[int] | None = None


@dataclass(frozen=True)
class Nearest:
    """A search's answer. hashed: of the image that was asked with. took: seconds of the search.

    complete: whether these are all within the radius; None without one. details: of the hits,
    where they were asked for.
    """

    code: bytes
    hits: list[Hit]
    complete: bool | None
    took: float
    hashed: HashedUpload | None = None
    details: Details | None = None


@dataclass(frozen=True)
class Enrolled:
    """What became of an image: `new`, `changed` or `known`, and its item."""

    status: str
    item: Item
    hashed: HashedUpload


def check_asked(asked: Asked) -> None:
    """Raise UsageError for filters that are none."""
    check_text("label", asked.label)
    check_text("where", asked.where)
    for what in ("since", "until"):
        _utc(what, getattr(asked, what))


def check_text(what: str, text: str | None) -> None:
    """Raise UsageError for text that no item carries."""
    if text is not None and not (0 < len(text) <= TEXT and is_utf8(text) and "\0" not in text):
        raise UsageError(
            f"{what}: expected 1 to {TEXT:,} characters without NUL, got {shown(repr(text))}"
        )


def _utc(what: str, text: str | None) -> str | None:
    try:
        return None if text is None else utc(text)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None


def item_in(index: Index, number: int) -> Item:
    """Return an item. Refusal for unknown ids."""
    found = index.by_id([number]).get(number)
    if found is None:
        raise Refusal(404, "unknown_id", f"there is no item {number}")
    return found


def remove_from(index: Index, number: int) -> Item:
    """Remove an item and return it. Refusal for unknown ids."""
    found = item_in(index, number)
    try:
        index.remove([number])
    except IndexStoreError:
        item_in(index, number)  # another process was faster
        raise
    return found


def thumbnail_in(index: Index, number: int, sha256: str | None) -> bytes:
    """Return the JPEG that the index keeps of an item. Refusal where it keeps none.

    sha256: of the photo that is meant. A photo is never opened by its item's path: whoever may
    write paths into an index could read this machine's files so.
    """
    item = item_in(index, number)
    found = index.thumbnails.read([number]).get(number)
    if found is None or sha256 not in (None, item.sha256):
        whose = "" if sha256 is None else " of that photo"
        raise Refusal(404, "no_thumbnail", f"the index keeps no thumbnail{whose} for item {number}")
    return found


def _filter(asked: Asked) -> tuple[str | None, tuple[str, ...]]:
    """Return the filters as one expression and its values."""
    given = {
        "label = ?": asked.label,
        "time >= ?": _utc("since", asked.since),
        "time < ?": _utc("until", asked.until),
    }
    parts = [part for part, value in given.items() if value is not None]
    if asked.where is not None:
        parts.append(f"({asked.where}\n)" if parts else asked.where)
    values = tuple(value for value in given.values() if value is not None)
    return " AND ".join(parts) or None, values


def search_in(index: Index, query: Query, asked: Asked, hashed: HashedUpload | None) -> Nearest:
    """Return the nearest items of a query, without those that it leaves out."""
    start = time.monotonic()
    where, params = _filter(asked)
    more = len(query.left_out)
    code = np.frombuffer(query.code, np.uint8)[None]
    (found,) = index.search(code, asked.k + more, where=where, params=params)
    kept = [hit for hit in found if query.is_answer(hit)][: asked.k]
    complete = None
    if asked.radius is not None:
        near = [hit for hit in kept if hit.distance <= asked.radius]
        complete, kept = len(near) < asked.k, near
    took = time.monotonic() - start
    return Nearest(query.code, kept, complete, took, hashed, _details(index, kept, asked))


def _details(index: Index, hits: list[Hit], asked: Asked) -> Details | None:
    if not asked.full:
        return None
    ids = [hit.id for hit in hits]
    return Details(index.by_id(ids), index.thumbnails.has(ids))


def page_of(index: Index, asked: Asked, after: int) -> Page:
    """Return up to k items with ids above `after`, ascending, that pass the filters."""
    where, params = _filter(asked)
    source = index.items(where, params, after=after)
    items = [item for item, _ in zip(source, range(asked.k), strict=False)]
    return Page(
        items, index.thumbnails.has([item.id or 0 for item in items]) if asked.full else None
    )


def add_to(
    index: Index, image: bytes, label: str | None, uri: str | None, hashed: HashedUpload
) -> Enrolled:
    """Add an image of this code, with its thumbnail where the index keeps some."""
    digest = hashlib.sha256(image).hexdigest()
    item = Item(uri, hashed.code, label, digest)
    keeps = index.embeddings.form is not None
    jpegs = [thumbnail(image)] if index.thumbnails.kept else None
    added = index.add(
        [item], embeddings=hashed.outputs.embedding if keeps else None, thumbnails=jpegs
    )
    there = index.by_path([uri]).get(uri) if uri is not None else None
    there = there or index.by_content([digest]).get(digest)
    if there is None:
        raise IndexStoreError(f"{index.path}: the item was removed as soon as it was added")
    if added.copies and label is not None and there.label != label:
        raise Refusal(
            409,
            "other_label",
            f"this image is item {there.id} with label {shown(there.label)}; remove that one first",
        )
    status = "new" if added.new else "changed" if added.changed else "known"
    return Enrolled(status, there, hashed)
