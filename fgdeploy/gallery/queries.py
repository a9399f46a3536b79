"""Queries against an index: photos, items, codes; and their answers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import sha256
from fgdeploy.core import numbers
from fgdeploy.core.codes import CodeFile, code_bytes
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.text import is_utf8, shown
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.gallery.several import members_of, place_of
from fgdeploy.hasher import Hasher
from fgdeploy.retrieval import Hit, Item
from fgdeploy.retrieval.store.ids import id_of

QUERIES_AT_ONCE = 256
Place = tuple[str | None, int]  # an item: the source of its hits, None for one gallery, and its id
ASYMMETRIC, EMBEDDING = RERANK = ("asymmetric", "embedding")


def find_id(index: Searchable, name: str) -> int:
    """Return the id that `name` means: an id, or a photo's path or URI.

    Raises DataError for neither, UsageError for more than an id can be.
    """
    if not isinstance(name, str):
        raise UsageError(f"expected an id or a path in text, got {shown(name)}")
    if name.isascii() and name.isdecimal():
        return numbers.whole(name, "item")
    for path in (os.path.abspath(name), name):
        if item := index.by_path([path]).get(path):
            return id_of(item.id)
    raise DataError(
        f"{shown(name) or 'an empty name'} is neither an id nor the path of an item; "
        "see: fgdeploy index list"
    )


@dataclass(frozen=True)
class Query:
    """What is looked for. name: what to call it; photo: its path; label: where it is known.

    item: the id of an item, which is no answer to itself; itself: places of more such items, each
    (source, id) as of a Hit; source: of `item`. hash: float (bits,) and embedding: float (width,),
    for re-ranking.
    """

    name: str
    code: bytes = b""
    photo: str | None = None
    label: str | None = None
    item: int | None = None
    hash: npt.NDArray[np.float32] | None = None
    embedding: npt.NDArray[np.float32] | None = None
    itself: frozenset[Place] = frozenset()
    source: str | None = None

    @property
    def left_out(self) -> frozenset[Place]:
        """The places of items that are no answers."""
        return self.itself if self.item is None else self.itself | {(self.source, self.item)}

    def is_answer(self, hit: Hit) -> bool:
        """Return whether a hit is none of those left out."""
        return (hit.source, hit.id) not in self.left_out


@dataclass(frozen=True)
class QuerySettings:
    """How to query: the `k` nearest, or all within `radius` bits; see `Searchable.search`.

    rerank: order the `pool` nearest (10 k by default) by the queries' real-valued hashes
    (ASYMMETRIC) or by their embeddings (EMBEDDING). UsageError for other words, or with a radius.
    """

    k: int = 10
    radius: int | None = None
    where: str | None = None
    rerank: str | None = None
    pool: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.rerank not in (None, *RERANK):
            raise UsageError(f"rerank {shown(self.rerank)}: expected {' or '.join(RERANK)}")
        if self.rerank and self.radius is not None:
            raise UsageError("re-ranking orders the k nearest; leave out the radius")
        if self.pool is not None and not self.rerank:
            raise UsageError(f"pool {shown(self.pool)}: nothing is re-ranked; leave it out")
        if self.pool is not None and (numbers.as_whole(self.pool) or 0) < self.k:
            raise UsageError(f"pool {shown(self.pool)}: expected k, {self.k}, or more")


def photo_queries(
    index: Searchable, hasher: Hasher, photos: Sequence[Path], exclude_self: bool = False
) -> Iterator[Query]:
    """Yield a query for each photo; its label is the index's own, or else its folder's name.

    A folder's name is a label only where items of the index have it. exclude_self: items with its
    path or its content are no answers. Raises ImageError.
    """
    index.require(hasher.fingerprint, hasher.bits)
    if isinstance(photos, (str, os.PathLike)) or not isinstance(photos, Sequence):
        raise UsageError(f"expected photos in a list, got {shown(photos)}; give [photo]")

    @functools.cache
    def is_label(name: str) -> bool:
        return index.has_label(name)

    def label(photo: Path) -> str | None:
        whole = os.path.abspath(photo)
        if not is_utf8(whole):
            return None
        known = index.by_path([whole], checked=False)
        if (item := known.get(whole)) and item.label is not None:
            return item.label
        folder = os.path.basename(os.path.dirname(whole))
        return folder if is_label(folder) else None

    for hashed in hasher.stream(photos):
        found = hashed.outputs
        for row, position in enumerate(hashed.positions):
            code, values = found.code[row], found.hash[row]
            own_embedding = None if found.embedding is None else found.embedding[row]
            photo = photos[position]
            name = str(photo)
            own = _itself(index, name) if exclude_self else frozenset[Place]()
            query = Query(name, code.tobytes(), name, label(photo), hash=values, itself=own)
            yield dataclasses.replace(query, embedding=own_embedding)


def _itself(index: Searchable, photo: str) -> frozenset[Place]:
    """Return the places of the items that are this photo, by path or by content."""
    paths = [path for path in {os.path.abspath(photo), photo} if is_utf8(path)]
    digest = None
    with contextlib.suppress(OSError, ValueError):
        digest = sha256(Path(photo))
    found: set[Place] = set()
    for source, member in members_of(index).items():
        ids = [item.id for item in member.by_path(paths, checked=False).values()]
        ids += [] if digest is None else member.ids_of_content(digest)
        found.update((source, id_of(number)) for number in ids)
    return frozenset(found)


def item_queries(index: Searchable, ids: Sequence[int | str]) -> list[Query]:
    """Return a query for each item, named by its id, or by INDEX:ID in text.

    Raises IndexStoreError that names unknown ids, and an id that several indexes have.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise UsageError(f"expected ids in a list, got {shown(ids)}; give [id]")
    places = [place_of(index, given) for given in ids]
    items = {
        source: iter(member.get([number for owner, number in places if owner == source]))
        for source, member in members_of(index).items()
    }
    return [_item_query(source, next(items[source])) for source, _ in places]


def _item_query(source: str | None, item: Item) -> Query:
    name = f"id {item.id}" if source is None else f"id {source}:{item.id}"
    return Query(name, item.code, item.path, item.label, item.id, source=source)


def code_queries(index: Searchable, texts: Sequence[str]) -> list[Query]:
    """Return a query for each code in hex digits. Raises UsageError for another width."""
    width, spare = code_bytes(index.bits), -index.bits % 8
    queries = []
    for text in texts:
        try:
            code = bytes.fromhex(text)
        except ValueError:
            code = b""
        if len(code) != width or len(text) != 2 * width:
            raise UsageError(
                f"--code {shown(text)}: expected {2 * width} hex digits for {index.bits} bits, "
                f"got {len(text)} characters"
            )
        if code[-1] & ((1 << spare) - 1):
            raise UsageError(
                f"--code {shown(text)}: bits behind bit {index.bits} are set; they must be zero"
            )
        queries.append(Query(text.lower(), code))
    return queries


def file_queries(index: Searchable, file: CodeFile, exclude_self: bool = False) -> Iterator[Query]:
    """Yield a query for each code of a file, named by its path. Raises IndexStoreError.

    exclude_self: as in `photo_queries`.
    """
    index.require(file.fingerprint, file.bits)
    for code, path, label in zip(file.codes, file.paths, file.labels, strict=True):
        data = code.tobytes()
        own = _itself(index, path) if exclude_self and path else frozenset[Place]()
        yield Query(path or data.hex(), data, path or None, label or None, itself=own)


def answer(
    index: Searchable, queries: Iterable[Query], settings: QuerySettings
) -> Iterator[tuple[Query, list[Hit]]]:
    """Yield each query with its answers, in bounded memory however many queries there are.

    Raises UsageError as `Searchable.search` does, and for re-ranking where a query has no hash.
    """
    source = iter(queries)
    while part := list(islice(source, QUERIES_AT_ONCE)):
        found: dict[int, list[Hit]] = {}
        for more in sorted({len(query.left_out) for query in part}):  # no query sees another's k
            places = [n for n, query in enumerate(part) if len(query.left_out) == more]
            hits = _found(index, [part[n] for n in places], settings, more)
            found.update(zip(places, hits, strict=True))
        for place, query in enumerate(part):
            yield query, _without_itself(query, found[place], settings)


def _found(
    index: Searchable, part: Sequence[Query], settings: QuerySettings, more: int
) -> list[list[Hit]]:
    """Return the answers to some queries, `more` than are wanted."""
    codes = np.frombuffer(b"".join(query.code for query in part), np.uint8).reshape(len(part), -1)
    if settings.radius is not None:
        return [
            index.search_radius(
                code, settings.radius, where=settings.where, threads=settings.threads
            )
            for code in codes
        ]
    return index.search(
        codes,
        settings.k + more,
        where=settings.where,
        hashes=_hashes(part) if settings.rerank == ASYMMETRIC else None,
        embeddings=_embeddings(part) if settings.rerank == EMBEDDING else None,
        pool=None if settings.pool is None else settings.pool + more,
        threads=settings.threads,
    )


def _hashes(part: Sequence[Query]) -> npt.NDArray[np.float32]:
    hashes = [query.hash for query in part if query.hash is not None]
    if len(hashes) < len(part):
        raise UsageError("re-ranking needs real-valued hashes, which only photos have")
    return np.stack(hashes)


def _embeddings(part: Sequence[Query]) -> npt.NDArray[np.float32]:
    rows = [query.embedding for query in part if query.embedding is not None]
    if len(rows) < len(part):
        raise UsageError(
            "re-ranking needs embeddings, which only photos have, by a bundle that gives them"
        )
    return np.stack(rows)


def _without_itself(query: Query, hits: Sequence[Hit], settings: QuerySettings) -> list[Hit]:
    others = [hit for hit in hits if query.is_answer(hit)]
    kept = others if settings.radius is not None else others[: settings.k]
    return [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)]
