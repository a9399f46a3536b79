"""Photos into an index, and queries against it: where the hasher meets the store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.bundle import sha256
from fgdeploy.errors import DataError, ImageError
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index, Item

# Photos per transaction: an interrupted run loses at most these.
COMMIT_EVERY = 256

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
        _hash_and_add(index, hasher, fresh, strict, report)
        progress(start + len(part), len(wanted))
    return report


def _hash_and_add(
    index: Index, hasher: Hasher, fresh: Sequence[Item], strict: bool, report: Report
) -> None:
    def skip(position: int, error: ImageError) -> None:
        report.skipped.append(str(error))

    waiting: list[Item] = []
    sources = (entry.path or "" for entry in fresh)
    for hashed in hasher.stream(sources, on_error=None if strict else skip):
        for position, code in zip(hashed.positions, hashed.outputs.code, strict=True):
            waiting.append(dataclasses.replace(fresh[position], code=code.tobytes()))
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
    known = index.by_path(path for path, _, _ in readable)
    same = index.by_content(digest for _, _, digest in readable if digest)
    fresh, moved = [], []
    labels: dict[str, str | None] = {}
    for path, label, digest in readable:
        there, twin = known.get(path), same.get(digest)
        if there is not None and there.sha256 == digest:
            labels[path] = label
        elif there is not None or twin is None:
            fresh.append(Item(path, b"", label, digest))
        elif twin.path is not None and os.path.exists(twin.path):
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


def open_or_create(path: Path, hasher: Hasher) -> tuple[Index, bool]:
    """Open the index at `path`, or create it for the hasher's model; True if it was created."""
    if path.exists():
        index = Index.open(path)
        try:
            index.require(hasher.fingerprint, hasher.bits)
        except BaseException:
            index.close()
            raise
        return index, False
    return Index.create(path, hasher.fingerprint, hasher.bits), True


def find_id(index: Index, name: str) -> int:
    """Return the id that `name` means: an id, or a photo's path or URI. Raises DataError."""
    if name.isdecimal():
        return int(name)
    for path in (os.path.abspath(name), name):
        if item := index.by_path([path]).get(path):
            return item.id
    raise DataError(f"{name} is neither an id nor the path of an item; see: fgdeploy index list")
