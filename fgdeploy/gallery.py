"""Photos into an index, and queries against it: where the hasher meets the store."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import sha256
from fgdeploy.codes import CodeFile, code_bytes
from fgdeploy.errors import DataError, ImageError, UsageError
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Hit, Index, Item

# Photos per transaction: an interrupted run loses at most these.
COMMIT_EVERY = 256
ASK_AT_ONCE = 256  # queries

Progress = Callable[[int, int], None]


@dataclass
class Report:
    """What became of photos: added (new or changed), already there (some with a new label or at
    another path than before), copies of photos that are there, skipped with reasons."""

    added: int = 0
    known: int = 0
    relabelled: int = 0
    moved: int = 0
    copies: int = 0
    skipped: list[str] = field(default_factory=list)


def add_photos(
    index: Index,
    hasher: Hasher,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Hash photos and add them, with bounded memory; a photo that is there unchanged is left alone.

    A photo that is there under a path where nothing lies any more has moved and keeps its id; a
    copy of one that still is there is left out. An unreadable photo is named in the report, or
    raises ImageError if `strict`. Raises IndexStoreError if the index is of another model.
    """
    index.require(hasher.fingerprint, hasher.bits)
    report = Report()
    wanted = list({os.path.abspath(photo.path): photo.label for photo in photos}.items())
    for start in range(0, len(wanted), COMMIT_EVERY):
        part = wanted[start : start + COMMIT_EVERY]
        fresh = _sort_out(index, part, strict, report)
        done = start + len(part) - len(fresh)
        for hashed in _hash_and_add(index, hasher, fresh, strict, report):
            progress(done + hashed, len(wanted))
        progress(start + len(part), len(wanted))
    return report


def _hash_and_add(
    index: Index, hasher: Hasher, fresh: Sequence[Item], strict: bool, report: Report
) -> Iterator[int]:
    """Yield how many photos are hashed so far, up to the last batch; then all are added."""

    def skip(position: int, error: ImageError) -> None:
        report.skipped.append(str(error))

    waiting: list[Item] = []
    sources = (entry.path or "" for entry in fresh)
    for hashed in hasher.stream(sources, on_error=None if strict else skip):
        for position, code in zip(hashed.positions, hashed.outputs.code, strict=True):
            waiting.append(dataclasses.replace(fresh[position], code=code.tobytes()))
        if hashed.positions[-1] + 1 < len(fresh):
            yield hashed.positions[-1] + 1
    if waiting:
        added = index.add(waiting)
        report.added += added.new + added.changed
        report.copies += added.known


def _sort_out(
    index: Index, photos: Sequence[tuple[str, str | None]], strict: bool, report: Report
) -> list[Item]:
    """Return the photos to hash, still without codes; note in `report` what became of others."""
    readable: list[tuple[str, str | None, str]] = []
    for path, label in photos:
        if _is_utf8(path, label):
            readable.append((path, label, _digest(Path(path))))
        elif strict:
            raise ImageError(_NOT_UTF8.format(path))
        else:
            report.skipped.append(_NOT_UTF8.format(path))
    known = index.by_path((path for path, _, _ in readable), checked=False)
    same = index.by_content((digest for _, _, digest in readable if digest), checked=False)
    fresh, moved = [], []
    labels: dict[str, str | None] = {}
    for path, label, digest in readable:
        there, twin = known.get(path), same.get(digest)
        if there is not None and there.sha256 == digest:
            labels[path] = label
        elif there is not None or twin is None:
            fresh.append(Item(path, b"", label, digest))
        elif twin.path is not None and ("://" in twin.path or os.path.exists(twin.path)):
            report.copies += 1
        else:
            moved.append(dataclasses.replace(twin, path=path, label=label))
            del same[digest]
    report.known += len(labels)
    report.relabelled += index.relabel(labels) if labels else 0
    report.moved += index.add(moved).changed if moved else 0
    return fresh


_NOT_UTF8 = "{!r}: the name of the file or its folder is not UTF-8; rename it"


def _is_utf8(*names: str | None) -> bool:
    try:
        "".join(name or "" for name in names).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _digest(path: Path) -> str:
    """Return a file's sha256, or nothing for one that cannot be read; decoding will say why."""
    try:
        return sha256(path)
    except OSError:
        return ""


class Model(Protocol):
    """What codes are of: a hasher, or a file of codes."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def bits(self) -> int: ...


def open_or_create(path: Path, model: Model) -> tuple[Index, bool]:
    """Open the index at `path`, or create it for this model; True if it was created."""
    if path.exists():
        index = Index.open(path)
        try:
            index.require(model.fingerprint, model.bits)
        except BaseException:
            index.close()
            raise
        return index, False
    return Index.create(path, model.fingerprint, model.bits), True


def find_id(index: Index, name: str) -> int:
    """Return the id that `name` means: an id, or a photo's path or URI. Raises DataError."""
    if name.isdecimal():
        return int(name)
    for path in (os.path.abspath(name), name):
        if item := index.by_path([path]).get(path):
            return item.id
    raise DataError(f"{name} is neither an id nor the path of an item; see: fgdeploy index list")


# Queries


@dataclass(frozen=True)
class Query:
    """What is looked for. name: what to call it; photo: its path; label: where it is known.

    item: the id of an item, which is no answer to itself. hash: float (bits,), for re-ranking.
    """

    name: str
    code: bytes = b""
    photo: str | None = None
    label: str | None = None
    item: int | None = None
    hash: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Ask:
    """How to ask: the `k` nearest, or all within `radius` bits; see `Index.search`.

    rerank: order the nearest by the queries' real-valued hashes; UsageError with a radius.
    """

    k: int = 10
    radius: int | None = None
    where: str | None = None
    rerank: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.rerank and self.radius is not None:
            raise UsageError("re-ranking orders the k nearest; leave out the radius")


def photo_queries(index: Index, hasher: Hasher, photos: Sequence[Path]) -> Iterator[Query]:
    """Yield a query for each photo; its label is the index's own, or else its folder's name.

    A folder's name is a label only where items of the index have it. Raises ImageError.
    """
    index.require(hasher.fingerprint, hasher.bits)

    @functools.cache
    def is_label(name: str) -> bool:
        return len(index.matching("label = ?", (name,), checked=False)) > 0

    def label(photo: Path) -> str | None:
        whole = os.path.abspath(photo)
        if not _is_utf8(whole):
            return None
        known = index.by_path([whole], checked=False)
        if (item := known.get(whole)) and item.label is not None:
            return item.label
        folder = os.path.basename(os.path.dirname(whole))
        return folder if is_label(folder) else None

    for hashed in hasher.stream(photos):
        rows = zip(hashed.positions, hashed.outputs.code, hashed.outputs.hash, strict=True)
        for position, code, values in rows:
            photo = photos[position]
            name = str(photo)
            yield Query(name, code.tobytes(), name, label(photo), hash=values)


def item_queries(index: Index, ids: Sequence[int]) -> list[Query]:
    """Return a query for each item. Raises IndexStoreError that names unknown ids."""
    return [
        Query(f"id {item.id}", item.code, item.path, item.label, item.id) for item in index.get(ids)
    ]


def code_queries(index: Index, texts: Sequence[str]) -> list[Query]:
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
                f"--code {text}: expected {2 * width} hex digits for {index.bits} bits, "
                f"got {len(text)} characters"
            )
        if code[-1] & ((1 << spare) - 1):
            raise UsageError(
                f"--code {text}: bits behind bit {index.bits} are set; they must be zero"
            )
        queries.append(Query(text.lower(), code))
    return queries


def file_queries(index: Index, file: CodeFile) -> Iterator[Query]:
    """Yield a query for each code of a file, named by its path. Raises IndexStoreError."""
    index.require(file.fingerprint, file.bits)
    for code, path, label in zip(file.codes, file.paths, file.labels, strict=True):
        data = code.tobytes()
        yield Query(path or data.hex(), data, path or None, label or None)


def answer(index: Index, queries: Iterable[Query], ask: Ask) -> Iterator[tuple[Query, list[Hit]]]:
    """Yield each query with its answers, in bounded memory however many queries there are.

    Raises UsageError as `Index.search` does, and for re-ranking where a query has no hash.
    """
    source = iter(queries)
    while part := list(islice(source, ASK_AT_ONCE)):
        codes = np.frombuffer(b"".join(query.code for query in part), np.uint8)
        codes = codes.reshape(len(part), -1)
        if ask.radius is not None:
            found = [
                index.search_radius(code, ask.radius, where=ask.where, threads=ask.threads)
                for code in codes
            ]
        else:
            hashes = [query.hash for query in part if query.hash is not None]
            if ask.rerank and len(hashes) < len(part):
                raise UsageError("re-ranking needs real-valued hashes, which only photos have")
            found = index.search(
                codes,
                ask.k + any(query.item for query in part),  # one is left out
                where=ask.where,
                hashes=np.stack(hashes) if ask.rerank else None,
                threads=ask.threads,
            )
        for query, hits in zip(part, found, strict=True):
            yield query, _without_itself(query, hits, ask)


def _without_itself(query: Query, hits: Sequence[Hit], ask: Ask) -> list[Hit]:
    others = [hit for hit in hits if hit.id != query.item]
    kept = others if ask.radius is not None else others[: ask.k]
    return [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(kept, start=1)]
