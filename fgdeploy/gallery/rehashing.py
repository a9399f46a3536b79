"""Items of one index hashed anew for another: from their photos, or from kept thumbnails."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import ImageError
from fgdeploy.hasher import Hasher
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.items import utc

_LARGEST = 1 << 30  # bytes of a photo, all of which are read


@dataclass
class _Made:
    """Items with new codes, and their embeddings where the index keeps some."""

    items: list[Item] = field(default_factory=list)
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)


@dataclass
class RehashReport:
    """What became of items, in this run. hashed: from photos; by_thumbnail: from thumbnails.

    changed: why photos were not taken that are not those of the items any more. lacking: the items
    that could not be hashed, with reasons, by id.
    """

    hashed: int = 0
    by_thumbnail: int = 0
    changed: dict[int, str] = field(default_factory=dict)
    lacking: dict[int, tuple[Item, str]] = field(default_factory=dict)


class Rehasher:
    """Brings items of `old` into `fresh`, with codes of the hasher's model."""

    def __init__(self, old: Index, fresh: Index, hasher: Hasher) -> None:
        self._old, self._fresh, self._hasher = old, fresh, hasher
        self._embedding = fresh.embeddings.form is not None
        self.report = RehashReport()

    def bring(self, ids: Sequence[int]) -> int:
        """Bring these items as the old index has them now; returns how many there was work for."""
        items = self._old.by_id(ids)
        there = self._fresh.by_id(ids)
        kept, pending = list[Item](), list[Item]()
        for number, item in items.items():
            if number in there and _same_photo(item, there[number]):
                same = replace(item, code=there[number].code, time=utc(item.time))
                kept += [same] * (same != there[number])
            elif self.report.lacking.get(number, (None,))[0] != item:
                pending.append(item)
        made = self._hash(pending)
        self._clear_way([*kept, *made.items])
        if kept:
            self._fresh.add(kept)
        if made.items:
            rows = np.concatenate(made.rows) if self._embedding else None
            self._fresh.add(made.items, embeddings=rows)
        return len(kept) + len(pending)

    def copy_pictures(self, ids: Sequence[int]) -> None:
        """Copy the thumbnails of these items, where both have the same photo."""
        found = self._old.thumbnails.read(ids)
        items = self._fresh.by_id(found)
        self._fresh.thumbnails.put(list(items.values()), [found[number] for number in items])

    def _clear_way(self, items: Sequence[Item]) -> None:
        """Remove items of the new index whose paths others have by now; they come anew."""
        paths = {item.path: item.id for item in items if item.path is not None}
        there = self._fresh.by_path(paths, checked=False)
        taken = [item.id for path, item in there.items() if item.id != paths[path]]
        if taken:
            self._fresh.remove([number for number in taken if number is not None])

    def _hash(self, items: Sequence[Item]) -> _Made:
        made, why = _Made(), dict[int, str]()
        self._run(items, self._photos(why), why, made)
        self.report.hashed += len(made.items)
        done, before = {item.id for item in made.items}, len(made.items)
        rest = [item for item in items if item.id not in done]
        self._run(rest, self._thumbnails(rest, why), why, made)
        self.report.by_thumbnail += len(made.items) - before
        done = {item.id for item in made.items}
        for item in items:
            number = item.id or 0
            if item.id in done:
                self.report.lacking.pop(number, None)
            else:
                self.report.lacking[number] = (item, why.get(number, "no photo on this disk"))
        return made

    def _run(
        self,
        items: Sequence[Item],
        contents: Callable[[Sequence[Item]], Iterator[tuple[Item, bytes]]],
        why: dict[int, str],
        made: _Made,
    ) -> None:
        given: list[Item] = []

        def sources() -> Iterator[bytes]:
            for item, content in contents(items):
                given.append(item)
                yield content

        def skip(position: int, error: ImageError) -> None:
            why.setdefault(given[position].id or 0, str(error).partition(";")[0])

        for hashed in self._hasher.stream(sources(), skip):
            for position, code in zip(hashed.positions, hashed.outputs.code, strict=True):
                made.items.append(replace(given[position], code=code.tobytes()))
            if self._embedding and hashed.outputs.embedding is not None:
                made.rows.append(hashed.outputs.embedding)

    def _photos(
        self, why: dict[int, str]
    ) -> Callable[[Sequence[Item]], Iterator[tuple[Item, bytes]]]:
        def contents(items: Sequence[Item]) -> Iterator[tuple[Item, bytes]]:
            for item in items:
                content = _read(item)
                if isinstance(content, bytes):
                    yield item, content
                else:
                    why[item.id or 0] = content
                    if content == _CHANGED:
                        self.report.changed[item.id or 0] = f"{item.path}: {_CHANGED}"

        return contents

    def _thumbnails(
        self, rest: Sequence[Item], why: dict[int, str]
    ) -> Callable[[Sequence[Item]], Iterator[tuple[Item, bytes]]]:
        found = self._old.thumbnails.read([item.id or 0 for item in rest])

        def contents(items: Sequence[Item]) -> Iterator[tuple[Item, bytes]]:
            for item in items:
                if (jpeg := found.get(item.id or 0)) is not None:
                    yield item, jpeg

        return contents


_CHANGED = "another photo by now"


def _same_photo(item: Item, there: Item) -> bool:
    """Return whether an item's photo is the one that was hashed, whatever else changed."""
    if item.sha256 or there.sha256:
        return item.sha256 == there.sha256
    return item.path == there.path and item.time == there.time


def _read(item: Item) -> bytes | str:
    """Return the bytes of an item's photo, or why they cannot be taken."""
    if item.path is None or "://" in item.path:
        return "no photo on this disk"
    try:
        handle = os.open(item.path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not stop it
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return "no file any more"
            if found.st_size > _LARGEST:
                return f"{found.st_size:,} bytes, more than a photo has"
            with open(handle, "rb", closefd=False) as stream:
                content = stream.read()
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError):
        return "no longer there"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    same = not item.sha256 or hashlib.sha256(content).hexdigest() == item.sha256
    return content if same else _CHANGED
