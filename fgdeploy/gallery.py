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
from fgdeploy.retrieval.store import Index, Item

# Photos per transaction: an interrupted run loses at most these.
COMMIT_EVERY = 256

Progress = Callable[[int, int], None]


@dataclass
class Report:
    """What became of photos: added (new or changed), already there (some with a new
    label), skipped with reasons."""

    added: int = 0
    known: int = 0
    relabelled: int = 0
    skipped: list[str] = field(default_factory=list)


def add_photos(
    index: Index,
    hasher: Hasher,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Hash photos and add them, with bounded memory; a photo that is there unchanged is left alone.

    An unreadable photo is named in the report, or raises ImageError if `strict`. Raises
    IndexStoreError if the index is of another model.
    """
    index.require(hasher.fingerprint, hasher.bits)
    report = Report()
    fresh = _sort_out(index, photos, strict, report)

    def skip(position: int, error: ImageError) -> None:
        report.skipped.append(str(error))

    waiting: list[Item] = []
    done = 0
    sources = (entry.path for entry in fresh)
    for hashed in hasher.stream(sources, on_error=None if strict else skip):
        for position, code in zip(hashed.positions, hashed.outputs.code, strict=True):
            waiting.append(dataclasses.replace(fresh[position], code=code.tobytes()))
        if len(waiting) >= COMMIT_EVERY:
            report.added += index.add(waiting)
            waiting = []
        done = hashed.positions[-1] + 1
        progress(done, len(fresh))
    report.added += index.add(waiting) if waiting else 0
    if done < len(fresh):  # the last ones could not be read
        progress(len(fresh), len(fresh))
    return report


def _sort_out(index: Index, photos: Sequence[Photo], strict: bool, report: Report) -> list[Item]:
    """Return the photos to hash, still without codes; note in `report` what became of others."""
    known, fresh = index.known(), []
    labels: dict[str, str | None] = {}
    for path, label in {os.path.abspath(photo.path): photo.label for photo in photos}.items():
        if not _is_utf8(path, label):
            if strict:
                raise ImageError(_NOT_UTF8.format(path))
            report.skipped.append(_NOT_UTF8.format(path))
        elif known.get(path) == (digest := _digest(Path(path))):
            labels[path] = label
        else:
            fresh.append(Item(path, b"", label, digest))
    report.known, report.relabelled = len(labels), index.relabel(labels) if labels else 0
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
    """Return the id that `name` means: an id, or a photo's path. Raises DataError."""
    if name.isdecimal():
        return int(name)
    wanted = os.path.abspath(name)
    for item in index.items():
        if item.path == wanted:
            return item.id
    raise DataError(f"{name} is neither an id nor the path of an item; see: fgdeploy index list")
