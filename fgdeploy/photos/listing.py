"""Lists of labelled photos: a folder, a single file, or a CSV with path, class and split."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from fgdeploy.core.errors import DataError
from fgdeploy.photos import images
from fgdeploy.photos.layouts import read_layout
from fgdeploy.photos.photo import Photo


def read(source: Path, labels: Path | None = None) -> list[Photo]:
    """List the photos of a folder, an image file, or a CSV (columns path, class, split).

    In a folder the label is the name of the folder that a photo lies in; top folders `train` and
    `test` (or `val`) are splits. An official dataset (`layouts`) has its own lists. `labels` names
    a CSV that says otherwise: its paths are relative to `source` (or to the CSV itself), and
    photos that it does not list keep their folder's name. Raises DataError.
    """
    if source.suffix.lower() == ".csv":
        if labels is not None:
            raise DataError(f"{source} is a CSV already; give either it or --labels, not both")
        return read_csv(source)
    if source.is_file():
        found = [source]
    elif source.is_dir():
        if labels is None and (official := read_layout(source)) is not None:
            return official
        found = images.find(source)
    else:
        raise DataError(f"no folder, image or CSV at {source}; check the path")
    if not found:
        raise DataError(
            f"no images in {source} (looked for {' '.join(sorted(images.SUFFIXES))}); "
            "check the folder"
        )
    splits = _split_folders(source, found)
    photos = [
        Photo(path, path.absolute().parent.name, splits.get(path.relative_to(source).parts[0]))
        if splits
        else Photo(path, path.absolute().parent.name)
        for path in found
    ]
    if labels is None:
        return photos
    listed = {os.path.abspath(photo.path): photo for photo in read_csv(labels, source)}
    return [
        Photo(photo.path, known.label, known.split)
        if (known := listed.get(os.path.abspath(photo.path)))
        else photo
        for photo in photos
    ]


def _split_folders(source: Path, found: Sequence[Path]) -> dict[str, str]:
    """Return the split of each top folder where these are train and test (or val), of classes."""
    inside = [path.relative_to(source).parts for path in found if source in path.parents]
    names = {parts[0]: parts[0].lower() for parts in inside}
    others = {"test", "val"} & set(names.values())
    if "train" not in names.values() or not others or not set(names.values()) <= {"train", *others}:
        return {}
    if min(map(len, inside)) < 3:  # split/class/photo
        return {}
    only_val = others == {"val"}
    return {top: "test" if only_val and name == "val" else name for top, name in names.items()}


def read_csv(source: Path, root: Path | None = None) -> list[Photo]:
    """List the photos of a CSV with the columns path, class and (optional) split.

    Relative paths count from `root` if the file is there, else from the CSV's own folder.
    Raises DataError with the line number for rows that are short, empty or have no file.
    """
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError(f"no CSV at {source}; check the path") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} is not a UTF-8 CSV: {error}") from error
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if "path" not in header or "class" not in header:
        raise DataError(
            f"{source}: expected a header with the columns path,class[,split], got "
            f"{','.join(header) or 'an empty file'}"
        )
    at_path, at_class = header.index("path"), header.index("class")
    at_split = header.index("split") if "split" in header else None
    photos = []
    for number, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{source} line {number}: expected {len(header)} columns, got {len(row)}; "
                "put names that hold commas in double quotes"
            )
        path = _locate(row[at_path], source.parent, root)
        if path is None:
            raise DataError(f"{source} line {number}: no file {row[at_path]!r}; correct the path")
        split = row[at_split].strip().lower() or None if at_split is not None else None
        photos.append(Photo(path, row[at_class].strip() or None, split))
    if not photos:
        raise DataError(f"{source} lists no photos; add rows below the header")
    return photos


def _locate(name: str, folder: Path, root: Path | None) -> Path | None:
    places = [folder / name] if root is None else [root / name, folder / name]
    return next((place for place in places if os.path.isfile(place)), None)
