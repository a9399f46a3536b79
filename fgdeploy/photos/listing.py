"""Lists of labelled photos: a folder, a single file, or a CSV with path, class and split."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.photos import table
from fgdeploy.photos.formats import SUFFIXES
from fgdeploy.photos.layouts import read_layout
from fgdeploy.photos.photo import Photo
from fgdeploy.photos.scanning import scan
from fgdeploy.photos.table import AS_NAMED, Columns


class Listing(Sequence[Photo]):
    """Photos, and one line each on what lies there but cannot be one of them: `skipped`.

    Each is made when it is asked for: 100,000 take 25 MiB, where as objects they take 61.
    """

    def __init__(self, photos: Iterable[Photo] = (), skipped: Sequence[str] = ()) -> None:
        self._paths: list[str] = []
        self._rest: list[tuple[str | None, str | None, int | None]] = []
        same: dict[tuple[str | None, str | None, int | None], Any] = {}
        for photo in photos:
            rest = (photo.label, photo.split, photo.bit_depth)
            self._paths.append(str(photo.path))
            self._rest.append(same.setdefault(rest, rest))
        self.skipped = tuple(skipped)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Photo: ...
    @overload
    def __getitem__(self, place: slice) -> list[Photo]: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Photo | list[Photo]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        return Photo(Path(self._paths[place]), *self._rest[place])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, Listing)):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Listing({list(self)!r}, {self.skipped!r})"


def skipped_of(photos: Sequence[Photo]) -> list[str]:
    """Return what the scan left out that a list of photos came from; nothing for plain lists."""
    return list(photos.skipped) if isinstance(photos, Listing) else []


def read(
    source: Path, labels: Path | None = None, columns: Columns = AS_NAMED, strict: bool = False
) -> Listing:
    """List the photos of a folder, an image file, or a CSV (columns path, class, split).

    In a folder the label is the name of the folder that a photo lies in; top folders `train` and
    `test` (or `val`) are splits. An official dataset (`layouts`) has its own lists. `labels` names
    a CSV that says otherwise: its paths are relative to `source` (or to the CSV itself), and
    photos that it does not list keep their folder's name. columns: what those of a CSV are called,
    and how deep 16-bit photos are. strict: raise ImageError for the first that a scan leaves out.
    Raises DataError.
    """
    listing = _read(source, labels, columns, strict)
    if columns.bit_depth is None:
        return listing
    deep = (dataclasses.replace(photo, bit_depth=columns.bit_depth) for photo in listing)
    return Listing(deep, listing.skipped)


def _read(source: Path, labels: Path | None, columns: Columns, strict: bool) -> Listing:
    if is_list(source):
        if labels is not None:
            raise DataError(f"{source} is a CSV already; give either it or --labels, not both")
        return read_csv(source, columns=columns)
    listing = _in_place(source, labels is None)
    if strict and listing.skipped:
        raise ImageError(listing.skipped[0])
    if labels is None:
        return listing
    listed = {os.path.abspath(one.path): one for one in read_csv(labels, source, columns)}
    known = (listed.get(os.path.abspath(photo.path)) for photo in listing)
    return Listing(
        (
            photo if one is None else Photo(photo.path, one.label, one.split)
            for photo, one in zip(listing, known, strict=True)
        ),
        listing.skipped,
    )


def is_list(source: Path) -> bool:
    """Tell whether a path means a list of photos in a text file, by its name."""
    return source.suffix.lower() in table.SUFFIXES


def label_of(path: Path) -> str | None:
    """Return the name of the folder that a photo lies in, links not followed; None in the root."""
    return os.path.basename(os.path.dirname(os.path.abspath(path))) or None


def _in_place(source: Path, official: bool) -> Listing:
    """List the photos of a folder or a file by where they lie, or as an official dataset says."""
    if os.path.isfile(source):  # never raises, as Path.is_file may
        found, skipped = [str(source)], []
    elif os.path.isdir(source):
        if official and (listed := read_layout(source)) is not None:
            return Listing(listed)
        scanned = scan(source)
        found, skipped = scanned.names, scanned.skipped
    else:
        raise DataError(f"no folder, image or CSV at {source}; check the path")
    if not found and skipped:
        raise DataError(
            f"no images in {source} that can be read; {len(skipped)} cannot, the first: "
            f"{skipped[0]}"
        )
    if not found:
        raise DataError(
            f"no images in {source} (looked for {' '.join(sorted(SUFFIXES))}); check the folder"
        )
    return Listing(_by_place(source, found, _split_folders(source, found)), skipped)


def _by_place(source: Path, found: list[str], splits: Mapping[str, str]) -> Iterator[Photo]:
    """Yield the photos of some names in order. Each name is let go, as there may be a million."""
    found.reverse()
    while found:
        path = Path(found.pop())
        split = splits.get(path.relative_to(source).parts[0]) if splits else None
        yield Photo(path, label_of(path), split)


def _split_folders(source: Path, found: Sequence[str]) -> dict[str, str]:
    """Return the split of each top folder where these are train and test (or val), of classes."""
    names: dict[str, str] = {}
    for path in map(Path, found):
        parts = path.relative_to(source).parts
        if len(parts) < 3:  # split/class/photo
            return {}
        names[parts[0]] = parts[0].lower()
    others = {"test", "val"} & set(names.values())
    if "train" not in names.values() or not others or not set(names.values()) <= {"train", *others}:
        return {}
    only_val = others == {"val"}
    return {top: "test" if only_val and name == "val" else name for top, name in names.items()}


def read_csv(source: Path, root: Path | None = None, columns: Columns = AS_NAMED) -> Listing:
    """List the photos of a CSV with the columns path, class and (optional) split.

    Relative paths count from `root` if the file is there, else from the CSV's own folder.
    Raises DataError with the line number for rows that are short, empty or have no file.
    """
    photos = Listing(_rows(source, root, columns))
    if not photos:
        raise DataError(f"{source} lists no photos; add rows below the header")
    return photos


def _rows(source: Path, root: Path | None, columns: Columns) -> Iterator[Photo]:
    for row in table.read_rows(source, columns):
        path = _locate(row.path, source.parent, root)
        if path is None:
            raise DataError(
                f"{source} line {row.line}: no file {table.shown(row.path)}; correct the path"
            )
        yield Photo(path, row.label, row.split)


def _locate(name: str, folder: Path, root: Path | None) -> Path | None:
    places = [folder / name] if root is None else [root / name, folder / name]
    return next((place for place in places if os.path.isfile(place)), None)
