"""Items out of an index into a file, and back into one.

`.jsonl` holds all of every item: first a line {"fgdeploy_index": 1, "bits": ..., "fingerprint":
..., "items": how many}, then one JSON object for each item, in order of id. `.npz` is the file that
`fgdeploy hash` writes: codes, paths and labels.
"""

from __future__ import annotations

import dataclasses
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from fgdeploy.core import atomic
from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import MAX_BITS, MIN_BITS, CodeFile, code_bytes
from fgdeploy.core.errors import DataError, FgdeployError, IndexStoreError, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.retrieval.store.ids import IdSet, id_of
from fgdeploy.retrieval.store.index import Index
from fgdeploy.retrieval.store.items import Added, Checker, Item, utc
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.strangers import first_stranger
from fgdeploy.retrieval.store.writing import BATCH

VERSION = 1
_HEAD_BYTES = 4096  # more than the first line of an export has
_LINE_BYTES = 1 << 30  # more than SQLite holds in a row
_SHOW_EVERY = 1000
_TEXTS = ("path", "label", "sha256", "time", "json")
_KEYS = ("id", "code", *_TEXTS)

_Kind = TypeVar("_Kind")


def export_items(index: Index, target: Path, progress: Progress = no_progress) -> int:
    """Write all items to a .jsonl or .npz file, atomically; returns how many.

    A .jsonl file is written in bounded memory. Raises UsageError for another suffix, OSError.
    """
    write = _chosen(target, {".jsonl": _write_lines, ".npz": _write_codes})
    return write(index, target, progress)


def open_export(source: Path) -> Incoming:
    """Open a .jsonl or .npz file to import from. Raises DataError, UsageError, OSError."""
    kinds: dict[str, Callable[[Path], Incoming]] = {".jsonl": _Lines, ".npz": _Codes}
    kind = _chosen(source, kinds)
    if not source.is_file():
        raise DataError(f"no file at {source}; make one with: fgdeploy index export")
    return kind(source)


def import_items(index: Index, incoming: Incoming, progress: Progress = no_progress) -> Added:
    """Add the items of a file, each the one of its id (.jsonl) or path (.npz), and never twice.

    Each BATCH of items is one transaction, and progress(done, total) is called when it is on the
    disk. Raises DataError that names the line that is wrong and the last one that was added (to
    import again does no harm), IndexStoreError if the file is of another model.
    """
    index.require(incoming.fingerprint, incoming.bits)
    total, last = Added(), 0
    try:
        for batch in incoming.batches(index):
            added = index.add(batch)
            last = incoming.taken
            total.new += added.new
            total.changed += added.changed
            total.known += last - total.total
            progress(last, incoming.count)
    except _BadError as error:
        what = f"{incoming.path} {incoming.unit} {error.place}: {error}"
        raise DataError(f"{what}; {incoming.so_far(last)}") from None
    except (IndexStoreError, UsageError) as error:
        raise type(error)(f"{error}; {incoming.so_far(last)}") from error
    if last < incoming.count:
        raise DataError(
            f"{incoming.path} ends after item {last} of {incoming.count}, so it was cut off; "
            f"{'those were added' if last else 'nothing was added'}; export it again"
        )
    return total


class Incoming(Closing):
    """A file that items come from; a context manager. count: how many items it says it holds.

    taken: how many of them the batches so far held; unit: what errors count by.
    """

    unit = "line"

    def __init__(self, path: Path, bits: int, fingerprint: str, count: int) -> None:
        self.path, self.bits, self.fingerprint, self.count = path, bits, fingerprint, count
        self.taken = 0

    @abstractmethod
    def batches(self, index: Index) -> Iterator[list[Item]]:
        """Yield the items from the first on, checked, to be added to `index` batch by batch."""

    def so_far(self, last: int) -> str:
        """Say what of the file is in the index when its first `last` items are."""
        return f"nothing after item {last} of {self.path} was added" if last else _NOTHING

    def close(self) -> None:
        """Close the file."""


_NOTHING = "nothing was added"


class _BadError(Exception):
    """An item that is none, by its line or number."""

    def __init__(self, place: int, why: str) -> None:
        super().__init__(why)
        self.place = place


# JSON lines


def _write_lines(index: Index, target: Path, progress: Progress) -> int:
    count, total = 0, len(index)
    with atomic.new_file(target) as stream:
        stream.write(_head_line(index, total))
        for item in index.items():
            stream.write(_line_of(item))
            count += 1
            if count % _SHOW_EVERY == 0 and count < total:
                progress(count, total)
        if count != total:  # others added or removed items meanwhile
            stream.seek(0)
            stream.write(_head_line(index, count))
    progress(count, count)
    return count


def _line_of(item: Item) -> bytes:
    fields: dict[str, object] = {"id": item.id, "code": item.code.hex()}
    for key in _TEXTS:
        # An empty path or label is another thing than none; "" is no sha256.
        if (text := getattr(item, key)) is not None and (text or key != "sha256"):
            fields[key] = text
    return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"


def _head_line(index: Index, count: int) -> bytes:
    """Return the first line, equally long for any count."""
    head = {"fgdeploy_index": VERSION, "bits": index.bits, "fingerprint": index.fingerprint}
    text = json.dumps({**head, "items": count})
    return (text + " " * (19 - len(str(count))) + "\n").encode("utf-8")


class _Lines(Incoming):
    def __init__(self, source: Path) -> None:
        with ExitStack() as stack:
            self._stream: IO[bytes] = stack.enter_context(open(source, "rb"))
            super().__init__(source, *_read_head(source, self._stream.readline(_HEAD_BYTES)))
            self._start = self._stream.tell()
            stack.pop_all()

    def close(self) -> None:
        self._stream.close()

    def so_far(self, last: int) -> str:
        return f"nothing after line {last + 1} was added" if last else _NOTHING

    def batches(self, index: Index) -> Iterator[list[Item]]:
        checker, seen = Checker(index.bits), IdSet()
        self._stream.seek(self._start)
        batch: dict[int, Item] = {}
        lines: dict[int, int] = {}  # of the ids in this batch
        owners: dict[str, int] = {}  # of the paths in this batch; those before are in the index
        number = 1
        while line := self._stream.readline(_LINE_BYTES):
            number += 1
            if number - 1 > self.count:
                raise _BadError(number, f"line 1 says {self.count}, and there are more")
            try:
                item = _item_of(line, checker)
            except FgdeployError as error:
                raise _BadError(number, str(error)) from None
            own = id_of(item.id)
            if seen.add(own):
                there = batch.get(own) or index.get([own])[0]
                if item != dataclasses.replace(there, time=there.time if item.time else ""):
                    raise _BadError(number, f"id {own} was there before with other content")
            else:
                batch[own], lines[own] = item, number
            if item.path is not None and owners.setdefault(item.path, own) != own:
                raise _BadError(number, f"{item.path} is the path of id {owners[item.path]} too")
            if len(batch) == BATCH:
                self.taken = number - 1
                _refuse_strangers(index, batch, lines)
                yield list(batch.values())
                batch.clear()
                owners.clear()
                lines.clear()
        self.taken = number - 1
        _refuse_strangers(index, batch, lines)
        yield list(batch.values())


def _refuse_strangers(index: Index, batch: dict[int, Item], lines: dict[int, int]) -> None:
    if found := first_stranger(index, batch):
        raise _BadError(lines[found[0]], found[1])


def _read_head(source: Path, line: bytes) -> tuple[int, str, int]:
    """Return bits, fingerprint and number of items. Raises DataError."""
    try:
        head = _object(line)
    except DataError as error:
        raise _no_export(source, str(error)) from None
    if "fgdeploy_index" not in head:
        raise _no_export(source, "no fgdeploy_index in it")
    if head["fgdeploy_index"] != VERSION:
        version = str(head["fgdeploy_index"])[:20]
        raise DataError(
            f"{source} has version {version}, expected {VERSION}; use the fgdeploy that wrote it"
        )
    bits, fingerprint, count = (head.get(key) for key in ("bits", "fingerprint", "items"))
    if type(bits) is not int or not MIN_BITS <= bits <= MAX_BITS:
        raise _no_export(source, f"bits: expected {MIN_BITS} to {MAX_BITS}")
    if type(fingerprint) is not str or not fingerprint.isprintable() or not fingerprint:
        raise _no_export(source, "fingerprint: expected text")
    if type(count) is not int or not 0 <= count <= MAX_ID:
        raise _no_export(source, "items: expected their number")
    return bits, fingerprint, count


def _no_export(source: Path, why: str) -> DataError:
    return DataError(
        f"{source} line 1: {why}; expected what fgdeploy index export writes; nothing was added"
    )


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(found, dict):
        raise DataError("expected a JSON object")
    return found


def _item_of(line: bytes, checker: Checker) -> Item:
    """Return the item of a line. Raises FgdeployError that says what is wrong with it."""
    fields = _object(line)
    if unknown := sorted(fields.keys() - set(_KEYS)):
        raise DataError(f"unknown key {unknown[0][:40]!r}; expected {', '.join(_KEYS)}")
    number, code = fields.get("id"), fields.get("code")
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise DataError(f"id: expected a whole number from 0 to {MAX_ID}")
    for key in _TEXTS:
        if not isinstance(fields.get(key), (str, type(None))):
            raise DataError(f"{key}: expected text, got {type(fields[key]).__name__}")
        if not _is_utf8(fields.get(key) or ""):
            raise DataError(f"{key}: its text is not Unicode (a lone surrogate)")
    item = Item(
        path=fields.get("path"),
        code=_code_of(code, checker.width),
        label=fields.get("label"),
        sha256=fields.get("sha256") or "",
        id=number,
        time=fields.get("time") or "",
        json=fields.get("json"),
    )
    try:
        checker.check(item)
        return dataclasses.replace(item, time=utc(item.time) if item.time else "")
    except (OverflowError, RecursionError):
        raise DataError("its time or json is beyond what can be read") from None


def _code_of(text: object, width: int) -> bytes:
    try:
        code = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        code = b""
    if not isinstance(text, str) or len(text) != 2 * width or len(code) != width:
        raise DataError(f"code: expected {2 * width} hex digits, got {str(text)[:40]!r}")
    return code


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# Code files


def _write_codes(index: Index, target: Path, progress: Progress) -> int:
    codes, paths, labels = bytearray(), [], []
    total = len(index)
    for item in index.items():
        codes += item.code
        paths.append(item.path or "")
        labels.append(item.label or "")
        if len(paths) % _SHOW_EVERY == 0 and len(paths) < total:
            progress(len(paths), total)
    packed = np.frombuffer(codes, np.uint8).reshape(len(paths), code_bytes(index.bits))
    CodeFile(packed, paths, labels, index.bits, index.fingerprint).save(target)
    progress(len(paths), len(paths))
    return len(paths)


class _Codes(Incoming):
    unit = "photo"

    def __init__(self, source: Path) -> None:
        self._file = file = CodeFile.load(source)
        super().__init__(source, file.bits, file.fingerprint, len(file.paths))

    def batches(self, index: Index) -> Iterator[list[Item]]:
        self._check(index)
        for start in range(0, self.count, BATCH):
            stop = min(start + BATCH, self.count)
            paths = self._file.paths[start:stop]
            there = index.by_path({*paths, *map(os.path.abspath, paths)}, checked=False)
            batch = {}
            for path, label, code in zip(
                paths, self._file.labels[start:stop], self._file.codes[start:stop], strict=True
            ):
                path = _whole_path(path, there)
                item = Item(path, code.tobytes(), label or None)
                batch[path] = _updated(there[path], item) if path in there else item
            self.taken = stop
            yield list(batch.values())

    def _check(self, index: Index) -> None:
        """Raise _BadError for a photo that cannot go in."""
        file, seen, checker = self._file, dict[str, int](), Checker(index.bits)
        checker.check_array(file.codes)
        for place, path in enumerate(file.paths):
            if not path:
                raise _BadError(
                    place + 1, "it has no path to be known again by; export to a .jsonl file"
                )
            if not _is_utf8(path + file.labels[place]):
                raise _BadError(place + 1, "its path or label is not Unicode (a lone surrogate)")
            first = seen.setdefault(path, place)
            if file.labels[first] != file.labels[place] or np.any(
                file.codes[first] != file.codes[place]
            ):
                raise _BadError(place + 1, f"photo {first + 1} has its path and other content")


def _whole_path(path: str, there: dict[str, Item]) -> str:
    """Return a path from this folder as `index add` keeps it, if that is what it is."""
    whole = os.path.abspath(path)
    if path in there or "://" in path or os.path.isabs(path):
        return path
    return whole if whole in there or os.path.exists(whole) else path


def _updated(there: Item, item: Item) -> Item:
    """Return the item `there` with a new code and label; another code means another photo."""
    same = there.code == item.code
    return dataclasses.replace(
        there,
        code=item.code,
        label=item.label,
        sha256=there.sha256 if same else "",
        time=there.time if same else "",
    )


def _chosen(path: Path, kinds: dict[str, _Kind]) -> _Kind:
    try:
        return kinds[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{path}: expected a name ending in .jsonl (all of every item) or .npz (codes, paths "
            "and labels)"
        ) from None
