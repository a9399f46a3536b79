"""Boxes matched to photos: in fractions of the upright photo, whatever the file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from fgdeploy import photos
from fgdeploy.core.errors import DataError
from fgdeploy.photos.boxes import Box, official, read_boxes
from tests.checks import refused
from tests.fgdeploy.photos.datasets import draw, write


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Four photos of 8 x 6 pixels in two classes; two have one name."""
    draw(tmp_path / "birds", "gull/1.jpg", "gull/2.jpg", "owl/1.jpg", "owl/3.jpg")
    return tmp_path / "birds"


def _read(source: Path, path: Path) -> tuple[dict[str, Box | None], tuple[str, ...]]:
    found = photos.read(source)
    boxes = read_boxes(path, found, source)
    names = [photo.path.relative_to(source).as_posix() for photo in found]
    return dict(zip(names, boxes.of, strict=True)), boxes.notes


def _coco(path: Path, images: list[dict[str, Any]], *boxes: dict[str, Any]) -> Path:
    write(path, json.dumps({"images": images, "annotations": list(boxes)}))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,x,y,width,height\ngull/1.jpg,2,3,4,3\n", Box(0.25, 0.5, 0.75, 1)),
        ("Path;x0;y0;x1;y1\ngull/1.jpg;2;3;6;6\n", Box(0.25, 0.5, 0.75, 1)),
        ("path,x0,y0,x1,y1\ngull/1.jpg,0.25,.5,0.75,1\n", Box(0.25, 0.5, 0.75, 1)),
        (
            "x,y,width,height,path,class\n0.25,0.5,0.5,0.5,gull/1.jpg,gull\n",
            Box(0.25, 0.5, 0.75, 1),
        ),
        ("path,x0,y0,x1,y1\ngull/1.jpg,-0.1,-0.2,8.1,6\n", Box(0, 0, 1, 1)),  # rounding
    ],
)
def test_a_csv_has_pixels_or_fractions(
    birds: Path, tmp_path: Path, text: str, expected: Box
) -> None:
    write(tmp_path / "boxes.csv", text)
    found, notes = _read(birds, tmp_path / "boxes.csv")
    assert found.pop("gull/1.jpg") == expected
    assert set(found.values()) == {None}
    assert notes == ("boxes.csv: 3 photos without a box",)


@pytest.mark.parametrize(
    "name", ["owl/3.jpg", "3.jpg", "birds/owl/3.jpg", "elsewhere/3.jpg", "owl\\3.jpg"]
)
def test_a_photo_is_named_by_its_path_or_its_own_name(
    birds: Path, tmp_path: Path, name: str
) -> None:
    images = [{"id": 7, "file_name": name, "width": 80, "height": 60}]
    path = _coco(tmp_path / "b.json", images, {"image_id": 7, "bbox": [20, 30, 40, 30]})
    assert _read(birds, path)[0]["owl/3.jpg"] == Box(0.25, 0.5, 0.75, 1)


def test_photos_that_are_not_there_are_not_taken_for_others_of_their_name(
    birds: Path, tmp_path: Path
) -> None:
    """A file for a whole dataset, of which the data here are a part; names repeat in folders."""
    names = ["auk/3.jpg", "wren/3.jpg", "auk/1.jpg", "images/owl/3.jpg", "images/gull/2.jpg"]
    write(tmp_path / "b.csv", "path,x0,y0,x1,y1\n" + "".join(f"{n},0,0,.5,1\n" for n in names))
    found, notes = _read(birds, tmp_path / "b.csv")
    assert {name for name, box in found.items() if box} == {"owl/3.jpg", "gull/2.jpg"}
    assert notes[-1] == "b.csv: boxes of 3 photos that are not among these"


def test_a_list_of_photos_and_a_path_from_the_root(birds: Path, tmp_path: Path) -> None:
    write(tmp_path / "l.csv", "path,class\nbirds/owl/1.jpg,owl\nbirds/gull/1.jpg,gull\n")
    write(
        tmp_path / "sub" / "b.csv",
        f"path,x0,y0,x1,y1\n{birds / 'owl/1.jpg'},0,0,.5,1\nbirds/gull/1.jpg,0,0,1,.5\n",
    )
    listed = photos.read(tmp_path / "l.csv")
    found = read_boxes(tmp_path / "sub" / "b.csv", listed, tmp_path / "l.csv")
    assert found.of == (Box(0, 0, 0.5, 1), Box(0, 0, 1, 0.5)) and found.notes == ()


def test_of_several_boxes_the_surest_or_the_largest(birds: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "b.csv",
        "path,x0,y0,x1,y1,score\n"
        "gull/1.jpg,0,0,.2,.2,0.9\ngull/1.jpg,0,0,1,1,0.5\ngull/1.jpg,0,0,1,1,\n"
        "owl/3.jpg,0,0,.2,.2,\nowl/3.jpg,0,0,.4,.4,\nowl/3.jpg,0,0,.4,.4,\nnone.jpg,0,0,1,1,\n",
    )
    found, notes = _read(birds, tmp_path / "b.csv")
    assert found["gull/1.jpg"] == Box(0, 0, 0.2, 0.2)
    assert found["owl/3.jpg"] == Box(0, 0, 0.4, 0.4)
    assert notes == (
        "b.csv: 2 photos without a box",
        "b.csv: 2 photos with several boxes; the one of the highest score counts, else the largest",
        "b.csv: boxes of 1 photo that are not among these",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [True, False])
def test_a_turned_photo(tmp_path: Path, orientation: int, stored: bool) -> None:
    """One red pixel of the stored photo; its box finds it in the upright one."""
    image = Image.new("RGB", (8, 6))
    image.putpixel((1, 4), (255, 0, 0))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "1.png", exif=exif)
    upright = photos.decode(tmp_path / "a" / "1.png")
    width, height = upright.size
    pixels = upright.load()
    assert pixels is not None
    places = [(x, y) for x in range(width) for y in range(height) if pixels[x, y] != (0, 0, 0)]
    (place,) = places
    if stored and orientation >= 5:  # width and height say so
        entry, size, box = (8, 6), (8, 6), [1, 4, 1, 1]
    else:
        entry, size, box = upright.size, upright.size, [*place, 1, 1]
    images = [{"id": 1, "file_name": "1.png", "width": entry[0], "height": entry[1]}]
    path = _coco(tmp_path / "b.json", images, {"image_id": 1, "bbox": box})
    found = _read(tmp_path / "a", path)[0]["1.png"]
    assert found is not None and found.area == pytest.approx(1 / (size[0] * size[1]))
    assert (found.left * width, found.top * height) == pytest.approx(place)
    assert (found.right * width, found.bottom * height) == pytest.approx([v + 1 for v in place])


@pytest.mark.parametrize(
    ("name", "box", "words"),
    [
        ("1.jpg", "0,0,1,1", r"line 2: '1.jpg' may be .*gull/1.jpg or .*owl/1.jpg; name it with"),
        ("owl/3.jpg", "0,0,90,60", r"from 0, 0 to 90, 60 leads out of its photo, owl/3.jpg, of 8"),
        ("owl/3.jpg", "-3,0,4,6", "leads out of its photo"),
        ("owl/3.jpg", "8,2,8.2,4", "lies beside its photo"),
        ("other.jpg", "0,0,1,1", "none of its photos is among those of .* first is 'other.jpg'"),
        ("owl/3.jpg", "-1,0,0.5,1", "leads out of its photo, owl/3.jpg, of 1 x 1, as all numbers"),
    ],
)
def test_boxes_that_fit_no_photo_are_refused(
    birds: Path, tmp_path: Path, name: str, box: str, words: str
) -> None:
    write(tmp_path / "b.csv", f"path,x0,y0,x1,y1\n{name},{box}\n")
    with refused(DataError, words):
        _read(birds, tmp_path / "b.csv")


def test_boxes_of_a_photo_of_another_shape_are_refused(birds: Path, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "3.jpg", "width": 100, "height": 100}]
    path = _coco(tmp_path / "b.json", images, {"image_id": 1, "bbox": [1, 1, 9, 9]})
    with refused(DataError, r"its photo is 100 x 100 there, but .*3.jpg is 8 x 6; give the boxes"):
        _read(birds, path)


def test_an_official_dataset_has_its_own(tmp_path: Path) -> None:
    root = tmp_path / "CUB_200_2011"
    draw(root, "images/001.A/1.jpg", "images/002.B/1.jpg")
    write(root / "images.txt", "1 001.A/1.jpg\n2 002.B/1.jpg\n")
    write(root / "image_class_labels.txt", "1 1\n2 2\n")
    write(root / "classes.txt", "1 001.A\n2 002.B\n")
    write(root / "train_test_split.txt", "1 1\n2 1\n")
    assert official(root) is None and official(tmp_path / "none") is None
    write(root / "bounding_boxes.txt", "1 2.0 3.0 4.0 3.0\n2 0.0 0.0 8.0 3.0\n")
    path = official(tmp_path)
    assert path == root / "bounding_boxes.txt"
    found = read_boxes(path, photos.read(tmp_path), tmp_path)
    assert found.of == (Box(0.25, 0.5, 0.75, 1), Box(0, 0, 1, 0.5))
