"""Files of boxes: what is no file of boxes, or has a box that is none, is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.photos.box_files import Entry, read_entries
from tests.checks import refused
from tests.fgdeploy.photos.datasets import write

ONE = {"id": 1, "file_name": "a.jpg"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [{"image_id": 1, "bbox": [1, 1, 2, 2], "score": 1}],
            "an object with the lists images and",
        ),
        ({"images": [ONE]}, "with the lists images and annotations, got an object"),
        ({"images": [ONE], "annotations": []}, "holds no boxes"),
        (
            {"images": [{"id": 1}], "annotations": []},
            r"images\[0\]: expected an object with id and",
        ),
        ({"images": [{"file_name": "a"}], "annotations": []}, r"images\[0\]: expected an id, got"),
        ({"images": [ONE, ONE], "annotations": []}, r"images\[1\]: the id 1 is there twice"),
        ({"images": [ONE], "annotations": [7]}, r"annotations\[0\]: expected an object, got 7"),
        ({"image_id": 2, "bbox": [1, 1, 2, 2]}, "image_id 2 is in no entry of images"),
        ({"image_id": [], "bbox": [1, 1, 2, 2]}, "image_id a list is in no entry of images"),
        ({"image_id": 1}, r"expected bbox as \[x, y, width, height\], got null"),
        ({"image_id": 1, "bbox": [1, 1, 2]}, "expected bbox as"),
        ({"image_id": 1, "bbox": [1, 1, "2", 2]}, "expected bbox as"),
        ({"image_id": 1, "bbox": [1, 1, True, 2]}, "expected bbox as"),
        ({"image_id": 1, "bbox": [1, 1, 0, 2]}, "a box of 0 x 2 has no area"),
        ({"image_id": 1, "bbox": [1, 1, 2, -2]}, "a box of 2 x -2 has no area"),
        ({"image_id": 1, "bbox": [1, 1, 1e400, 2]}, "not JSON|finite"),
    ],
)
def test_what_is_no_coco_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    if isinstance(content, dict) and "image_id" in content:
        content = {"images": [ONE], "annotations": [content]}
    write(tmp_path / "b.json", json.dumps(content))
    with refused(DataError, words):
        read_entries(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b.json", "{", "is not JSON"),
        ("b.json", '{"images": NaN}', "is not JSON"),
        ("b.xml", "<a/>", "read from COCO's .json or from a .csv"),
        ("b.csv", "", "an empty first line"),
        ("b.csv", "path,x,y\n", r"path,x0,y0,x1,y1 or path,x,y,width,height, got path,x,y"),
        ("b.csv", "path,x,y,width,height,x0,y0,x1,y1\n", "expected a header"),
        ("b.csv", "path,x,y,width,height,x\n", "two columns are named 'x'"),
        ("b.csv", "path,x,y,width,height\n", "holds no boxes"),
        ("b.csv", "path,x,y,width,height\na,1,1,2\n", "line 2: expected 5 columns, got 4"),
        ("b.csv", "path,x,y,width,height\na,nan,1,2,2\n", "line 2: x 'nan': expected a finite"),
        ("b.csv", "path,x,y,width,height\na,1,1,inf,2\n", "line 2: width 'inf': expected a finite"),
        ("b.csv", "path,x,y,width,height\na,1,1,,2\n", "line 2: width '': expected a finite"),
        ("b.csv", "path,x,y,width,height\na,1,1,0,2\n", "line 2: a box of 0 x 2 has no area"),
        ("b.csv", "path,x0,y0,x1,y1\na,3,1,2,2\n", "line 2: a box of -1 x 1 has no area"),
        ("b.csv", "path,x0,y0,x1,y1,score\na,1,1,2,2,high\n", "line 2: score 'high': expected"),
        ("bounding_boxes.txt", "3 1 1 2 2\n", r"line 1: expected an image id of images.txt and x"),
        ("bounding_boxes.txt", "1 1 1 2\n", "expected an image id of images.txt and x, y, width"),
        ("bounding_boxes.txt", "1 1 1 2 x\n", "line 1: height 'x': expected a finite number"),
    ],
)
def test_what_is_no_list_of_boxes_is_refused(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    write(tmp_path / "images.txt", "1 a.jpg\n")
    write(tmp_path / name, text)
    with refused(DataError, words):
        read_entries(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "no file with boxes at .*none.csv; check --boxes"):
        read_entries(tmp_path / "none.csv")


def test_what_coco_says_of_its_photos_is_kept(tmp_path: Path) -> None:
    sized = {"id": "x", "file_name": "b/a.jpg", "width": 80, "height": 60}
    boxes = [
        {"image_id": "x", "bbox": [1, 2, 3, 4.5], "score": 0.5, "category_id": 3, "iscrowd": 0},
        {"image_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    write(tmp_path / "b.json", json.dumps({"images": [sized, ONE], "annotations": boxes}))
    at = f"{tmp_path / 'b.json'}: annotations"
    assert read_entries(tmp_path / "b.json") == [
        Entry(f"{at}[0]", "b/a.jpg", (1, 2, 4, 6.5), 0.5, (80, 60)),
        Entry(f"{at}[1]", "a.jpg", (1, 2, 4, 6)),
    ]
