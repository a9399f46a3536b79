"""VegFru, Food-101 and iNaturalist 2017 as they are unpacked, and damage to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.photos.layouts import read_layout
from tests.checks import refused
from tests.fgdeploy.photos.datasets import (
    brief,
    change,
    draw,
    name_of,
    write,
)

# --- VegFru


@pytest.fixture
def vegfru(tmp_path: Path) -> Path:
    draw(tmp_path, *(f"veg200_images/Chinese_kale/v_06_03_000{n}.jpg" for n in (1, 2, 3)))
    draw(tmp_path, "fru92_images/banana/f_01_01_1031.jpg", "fru92_images/Jew's-ear/f 2.jpg")
    for split, number in (("train", 2), ("val", 1), ("test", 3)):
        write(
            tmp_path / "veg200_lists" / f"veg_{split}.txt",
            f"Chinese_kale/v_06_03_000{number}.jpg 3\n",
        )
        write(tmp_path / "fru92_lists" / f"fru_{split}.txt", "")
    write(tmp_path / "fru92_lists" / "fru_train.txt", "banana/f_01_01_1031.jpg 0\n")
    write(tmp_path / "fru92_lists" / "fru_test.txt", "Jew's-ear/f 2.jpg 10\n")
    write(tmp_path / "fru92_lists" / "fru_subclasses.txt", "banana\nJew's-ear\n")
    return tmp_path


def test_vegfru(vegfru: Path) -> None:
    assert name_of(vegfru) == "VegFru"
    assert brief(read_layout(vegfru), vegfru) == [
        ("veg200_images/Chinese_kale/v_06_03_0002.jpg", "Chinese_kale", "train"),
        ("veg200_images/Chinese_kale/v_06_03_0001.jpg", "Chinese_kale", "val"),
        ("veg200_images/Chinese_kale/v_06_03_0003.jpg", "Chinese_kale", "test"),
        ("fru92_images/banana/f_01_01_1031.jpg", "banana", "train"),
        ("fru92_images/Jew's-ear/f 2.jpg", "Jew's-ear", "test"),
    ]


@pytest.mark.parametrize("line", ["onion/1.jpg", "1.jpg 3", "onion/1.jpg three"])
def test_damaged_line_of_vegfru(vegfru: Path, line: str) -> None:
    write(vegfru / "fru92_lists" / "fru_val.txt", f"\nbanana/f_01_01_1031.jpg 0\n{line}\n")
    with refused(DataError, rf"/fru_val\.txt line 3: expected .* class number, got '{line}'; unp"):
        read_layout(vegfru)


def test_missing_photo_of_vegfru(vegfru: Path) -> None:
    write(vegfru / "veg200_lists" / "veg_val.txt", "onion/1.jpg 3\n")
    with refused(
        DataError, r"/veg_val\.txt line 1: no file 'onion/1\.jpg' in \S+/veg200_images; unpack"
    ):
        read_layout(vegfru)


def test_half_of_vegfru(vegfru: Path) -> None:
    (vegfru / "fru92_lists" / "fru_test.txt").unlink()
    with refused(DataError, r"looks like VegFru, but fru92_lists/fru_test\.txt is missing; unp"):
        read_layout(vegfru)
    (vegfru / "fru92_images").rename(vegfru / "fruit")
    with refused(DataError, r"looks like VegFru, but fru92_images is missing; unpack"):
        read_layout(vegfru)


def test_vegfru_with_lists_in_one(tmp_path: Path) -> None:
    draw(tmp_path, "veg200_images/onion/1.jpg", "veg200_images/onion/2.jpg")
    draw(tmp_path, "fru92_images/banana/1.jpg")
    lists = tmp_path / "vegfru_list"
    write(lists / "vegfru_train.txt", "fru92_images/banana/1.jpg 0\n")
    write(lists / "vegfru_val.txt", "veg200_images/onion/1.jpg 92\n")
    write(lists / "vegfru_test.txt", "veg200_images/onion/2.jpg 92\n")
    assert name_of(tmp_path) == "VegFru"
    assert brief(read_layout(tmp_path), tmp_path) == [
        ("fru92_images/banana/1.jpg", "banana", "train"),
        ("veg200_images/onion/1.jpg", "onion", "val"),
        ("veg200_images/onion/2.jpg", "onion", "test"),
    ]


# --- Food-101


@pytest.fixture
def food(tmp_path: Path) -> Path:
    root = tmp_path / "food-101"
    draw(root, "images/apple_pie/1005649.jpg", "images/apple_pie/1011328.jpg")
    draw(root, "images/waffles/89650.jpg")
    write(root / "meta" / "train.txt", "apple_pie/1005649\nwaffles/89650\n")
    write(root / "meta" / "test.txt", "apple_pie/1011328\n")
    write(root / "meta" / "classes.txt", "apple_pie\nwaffles\n")
    return root


def test_food(food: Path) -> None:
    assert name_of(food) == name_of(food.parent) == "Food-101"
    assert brief(read_layout(food), food) == [
        ("images/apple_pie/1005649.jpg", "apple_pie", "train"),
        ("images/waffles/89650.jpg", "waffles", "train"),
        ("images/apple_pie/1011328.jpg", "apple_pie", "test"),
    ]


def test_missing_photo_of_food(food: Path) -> None:
    (food / "images" / "waffles" / "89650.jpg").unlink()
    with refused(DataError, r"/meta/train\.txt line 2: no file 'waffles/89650\.jpg' in "):
        read_layout(food)


@pytest.mark.parametrize("line", ["apple_pie", "apple_pie/", "/1005649"])
def test_damaged_line_of_food(food: Path, line: str) -> None:
    write(food / "meta" / "test.txt", f"apple_pie/1011328\n{line}\n")
    with refused(DataError, rf"/meta/test\.txt line 2: expected class/photo, got '{line}'; unp"):
        read_layout(food)


def test_half_of_food(food: Path) -> None:
    (food / "meta" / "test.txt").unlink()
    with refused(DataError, r"looks like Food-101, but meta/test\.txt is missing; unpack"):
        read_layout(food)


# --- iNaturalist 2017

FOX, STERNA = "Mammalia/Urocyon cinereoargenteus", "Aves/Sterna hirundo"


def inat_list(images: list[tuple[int, str, int]]) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [
            {"id": image, "width": 8, "height": 6, "file_name": f"train_val_images/{name}"}
            for image, name, _ in images
        ],
        "categories": [
            {"id": 7, "name": "Sterna hirundo", "supercategory": "Aves"},
            {"id": 31, "name": "Urocyon cinereoargenteus", "supercategory": "Mammalia"},
        ],
        # not in the order of the images, as nothing says that it should be
        "annotations": [
            {"id": image, "image_id": image, "category_id": category}
            for image, _, category in reversed(images)
        ],
    }


@pytest.fixture
def inat(tmp_path: Path) -> Path:
    draw(tmp_path / "train_val_images", f"{FOX}/a.jpg", f"{FOX}/b.jpg", f"{STERNA}/c.jpg")
    train = inat_list([(1, f"{FOX}/a.jpg", 31), (2, f"{STERNA}/c.jpg", 7)])
    (tmp_path / "train2017.json").write_text(json.dumps(train), encoding="utf-8")
    test = inat_list([(900, f"{FOX}/b.jpg", 31)])
    (tmp_path / "val2017.json").write_text(json.dumps(test), encoding="utf-8")
    return tmp_path


def test_inat(inat: Path) -> None:
    assert name_of(inat) == "iNaturalist 2017"
    assert brief(read_layout(inat), inat) == [
        (
            "train_val_images/Mammalia/Urocyon cinereoargenteus/a.jpg",
            "Urocyon cinereoargenteus",
            "train",
        ),
        ("train_val_images/Aves/Sterna hirundo/c.jpg", "Sterna hirundo", "train"),
        (
            "train_val_images/Mammalia/Urocyon cinereoargenteus/b.jpg",
            "Urocyon cinereoargenteus",
            "test",
        ),
    ]


def test_categories_of_one_name_keep_their_numbers(inat: Path) -> None:
    for name in ("train2017.json", "val2017.json"):
        change(inat / name, '"name": "Sterna hirundo"', '"name": "Urocyon cinereoargenteus"')
    assert [photo.label for photo in read_layout(inat) or []] == [
        "31 Urocyon cinereoargenteus",
        "7 Urocyon cinereoargenteus",
        "31 Urocyon cinereoargenteus",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/b.jpg", "/z.jpg", r"images\[0\]: no file 'train_val_images/.*/z\.jpg' in "),
        ("train_val_images/", "../", r"images\[0\]: '\.\./.*/b\.jpg' leads out of "),
        ("train_val_images/", "/", r"images\[0\]: '/Mamm.*/b\.jpg' leads out of "),
        ('"image_id": 900', '"image_id": 9', r"images\[0\]: image 900 is not in annotations; unp"),
        ('"category_id": 31', '"category_id": 8', r"annotations\[0\]: category 8 is not in categ"),
        (
            '"id": 31',
            '"id": "31"',
            r"categories\[1\]: expected id \(int\), name \(str\), got .*; un",
        ),
        ('"file_name"', '"file"', r"images\[0\]: expected id \(int\), file_name \(str\), got "),
        ('"image_id": 900', '"image_id": []', r"annotations\[0\]: expected image_id \(int\), cat"),
    ],
)
def test_damaged_entry_of_inat(inat: Path, old: str, new: str, message: str) -> None:
    change(inat / "val2017.json", old, new)
    with refused(DataError, rf"/val2017\.json {message}"):
        read_layout(inat)


def test_image_of_two_categories(inat: Path) -> None:
    listed = inat_list([(900, f"{FOX}/b.jpg", 31), (900, f"{FOX}/b.jpg", 7)])
    (inat / "val2017.json").write_text(json.dumps(listed), encoding="utf-8")
    with refused(DataError, r"annotations\[1\]: image 900 has another category already; unpack"):
        read_layout(inat)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r" is not JSON: Expecting value"),
        ('{"images": [', r" is not JSON: Expecting value"),
        ("[" * 100_000, r" is not JSON: "),
        ("[]", r": expected a JSON object, got list; unpack"),
        ("{}", r": expected a list 'categories', got NoneType; unpack"),
        (
            '{"categories": [3]}',
            r" categories\[0\]: expected id \(int\), name \(str\), got '3'; un",
        ),
    ],
)
def test_json_that_is_damaged(inat: Path, text: str, message: str) -> None:
    write(inat / "train2017.json", text)
    with refused(DataError, rf"/train2017\.json{message}"):
        read_layout(inat)


def test_half_of_inat(inat: Path) -> None:
    (inat / "val2017.json").unlink()
    with refused(DataError, r"looks like iNaturalist 2017, but val2017\.json is missing; unpack"):
        read_layout(inat)
