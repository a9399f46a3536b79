"""Boxes of objects as files have them: COCO's JSON, a CSV, or CUB-200-2011's bounding_boxes.txt.

What is wrong in one of them raises a DataError that names the file and the line or entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.core import json_schema
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.numbers import real
from fgdeploy.photos import list_files, table

OFFICIAL = "bounding_boxes.txt"
CORNERS, SIDES = ("x0", "y0", "x1", "y1"), ("x", "y", "width", "height")
COLUMNS = ("path", *CORNERS, "score")
_COCO = "a COCO file is an object with the lists images and annotations"


@dataclass(frozen=True)
class Entry:
    """One box as a file has it: where it stands, the photo's name, corners x0, y0, x1, y1.

    score: how sure a detector is, None where nothing says. size: width and height of the photo that
    was annotated, None where nothing says.
    """

    where: str
    name: str
    corners: tuple[float, float, float, float]
    score: float | None = None
    size: tuple[int, int] | None = None


def read_entries(path: Path) -> list[Entry]:
    """Return the boxes in a file, as they stand there. Raises DataError."""
    if not path.is_file():
        raise DataError(f"no file with boxes at {path}; check --boxes")
    if path.name == OFFICIAL:
        found = list(_official(path))
    elif path.suffix.lower() in table.SUFFIXES:
        found = list(_rows(path))
    elif path.suffix.lower() == ".json":
        found = list(_coco(path))
    else:
        raise DataError(f"{path}: boxes are read from COCO's .json or from a .csv; convert it")
    if not found:
        raise DataError(f"{path} holds no boxes; check the file")
    for one in found:
        _check(one)
    return found


def _check(entry: Entry) -> None:
    x0, y0, x1, y1 = entry.corners
    if not all(map(math.isfinite, entry.corners)):
        raise DataError(f"{entry.where}: a box of {_said(entry.corners)}; expected finite numbers")
    if x1 <= x0 or y1 <= y0:
        raise DataError(
            f"{entry.where}: a box of {x1 - x0:g} x {y1 - y0:g} has no area; correct or remove it"
        )


def _said(corners: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in corners)


def _rows(path: Path) -> Iterator[Entry]:
    columns, rows = table.read_named(path, [("path", *CORNERS), ("path", *SIDES)])
    for line, cells in rows:
        where = f"{path} line {line}"
        values = [_number(cells[name].strip(), where, name) for name in columns[1:]]
        score = cells.get("score", "").strip()
        yield Entry(
            where,
            cells["path"],
            _corners(values) if columns[1:] == SIDES else (*values[:2], *values[2:]),  # type: ignore[arg-type]
            _number(score, where, "score") if score else None,
        )


def _number(text: str, where: str, name: str) -> float:
    try:
        return real(text, name)
    except UsageError:
        raise DataError(f"{where}: {name} {table.shown(text)}: expected a finite number") from None


def _corners(values: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x, y, x + width, y + height


def _official(path: Path) -> Iterator[Entry]:
    """Read `id x y width height`, whose ids are those of images.txt beside it."""
    images = list_files.table(path.parent / "images.txt", "an image id and a path")
    for where, image, rest in list_files.rows(path, "an image id and x, y, width and height"):
        cells = rest.split()
        if image not in images or len(cells) != 4:
            raise DataError(
                f"{where}: expected an image id of images.txt and x, y, width and height, got "
                f"{f'{image} {rest}'[:60]!r}; {list_files.AGAIN}"
            )
        values = [_number(cell, where, name) for cell, name in zip(cells, SIDES, strict=True)]
        yield Entry(where, images[image][1], _corners(values))


def _coco(path: Path) -> Iterator[Entry]:
    try:
        content = json_schema.parse(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    held = content if isinstance(content, dict) else {}
    images, annotations = held.get("images"), held.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(
            f"{path}: {_COCO}, got {json_schema.said(content)}; give the annotations, not results"
        )
    known: dict[Any, Mapping[str, Any]] = {}
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise DataError(f"{where}: expected an object with id and file_name; {_COCO}")
        key = image.get("id")
        if not isinstance(key, (int, str)):
            raise DataError(f"{where}: expected an id, got {json_schema.said(key)}")
        if key in known:
            raise DataError(f"{where}: the id {key!r} is there twice; give each image its own")
        known[key] = image
    for number, one in enumerate(annotations):
        yield _annotation(f"{path}: annotations[{number}]", one, known)


def _annotation(where: str, one: Any, images: Mapping[Any, Mapping[str, Any]]) -> Entry:
    if not isinstance(one, dict):
        raise DataError(f"{where}: expected an object, got {json_schema.said(one)}; {_COCO}")
    key, box, score = one.get("image_id"), one.get("bbox"), one.get("score")
    if not isinstance(key, (int, str)) or key not in images:
        raise DataError(f"{where}: image_id {json_schema.said(key)} is in no entry of images")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(
            f"{where}: expected bbox as [x, y, width, height], got {json_schema.said(box)}"
        )
    image = images[key]
    size = image.get("width"), image.get("height")
    told = all(type(side) is int and side > 0 for side in size)
    return Entry(
        where,
        image["file_name"],
        _corners([float(value) for value in box]),
        float(score) if _is_number(score) else None,  # type: ignore[arg-type]
        size if told else None,  # type: ignore[arg-type]
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
