"""CUB-200-2011 and NABirds as they are unpacked, damage to them, and folders that are neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fgdeploy import photos
from fgdeploy.core.errors import DataError
from fgdeploy.photos.layouts import find_layout, read_layout
from tests.checks import refused
from tests.fgdeploy.photos.datasets import (
    Brief,
    brief,
    change,
    draw,
    name_of,
    write,
)

# --- CUB-200-2011

ALBATROSS, AUKLET = "001.Black_footed_Albatross", "005.Crested_Auklet"


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    draw(root, f"images/{ALBATROSS}/B_0046.jpg", f"images/{ALBATROSS}/B_0009.jpg")
    draw(root, f"images/{AUKLET}/C_0001.jpg")
    write(
        root / "images.txt",
        f"1 {ALBATROSS}/B_0046.jpg\n2 {ALBATROSS}/B_0009.jpg\n3 {AUKLET}/C_0001.jpg\n",
    )
    write(root / "image_class_labels.txt", "1 1\n2 1\n3 5\n")
    write(root / "classes.txt", f"1 {ALBATROSS}\n2 002.Laysan_Albatross\n5 {AUKLET}\n")
    write(root / "train_test_split.txt", "1 0\n2 1\n3 1\n")
    write(root / "bounding_boxes.txt", "1 60.0 27.0 325.0 304.0\n")
    return root


CUB: Brief = [
    ("images/001.Black_footed_Albatross/B_0046.jpg", "001.Black_footed_Albatross", "test"),
    ("images/001.Black_footed_Albatross/B_0009.jpg", "001.Black_footed_Albatross", "train"),
    ("images/005.Crested_Auklet/C_0001.jpg", "005.Crested_Auklet", "train"),
]


def test_cub(cub: Path) -> None:
    assert name_of(cub) == "CUB-200-2011"
    assert brief(read_layout(cub), cub) == CUB


def test_cub_from_the_folder_that_it_was_unpacked_in(cub: Path) -> None:
    write(cub.parent / "attributes.txt", "1 has_bill_shape::curved\n")
    assert name_of(cub.parent) == "CUB-200-2011"
    assert brief(read_layout(cub.parent), cub) == CUB


def test_photos_of_a_folder_come_from_its_layout(cub: Path) -> None:
    found = photos.read(cub)
    assert brief(found, cub) == CUB
    with Image.open(found[0].path) as image:
        assert image.size == (8, 6)
    assert [photo.path.name for photo in photos.of_split(found, "test")] == ["B_0046.jpg"]


def test_labels_beside_a_layout_keep_the_folder_names(cub: Path) -> None:
    write(cub.parent / "l.csv", f"path,class\nimages/{AUKLET}/C_0001.jpg,auk\n")
    assert brief(photos.read(cub, cub.parent / "l.csv"), cub) == [
        ("images/001.Black_footed_Albatross/B_0009.jpg", "001.Black_footed_Albatross", None),
        ("images/001.Black_footed_Albatross/B_0046.jpg", "001.Black_footed_Albatross", None),
        ("images/005.Crested_Auklet/C_0001.jpg", "auk", None),
    ]


def test_lists_with_windows_line_ends_and_a_byte_order_mark(cub: Path) -> None:
    write(cub / "train_test_split.txt", "\ufeff1 0\r\n2 1\r\n3 1\r\n\r\n")
    assert brief(read_layout(cub), cub) == CUB


def test_photo_folder_may_be_a_link(cub: Path, tmp_path: Path) -> None:
    (cub / "images").rename(tmp_path / "elsewhere")
    (cub / "images").symlink_to(tmp_path / "elsewhere")
    linked = cub / "images" / AUKLET / "C_0001.jpg"
    linked.rename(tmp_path / "blob")
    linked.symlink_to(tmp_path / "blob")
    assert brief(read_layout(cub), cub) == CUB


def test_photo_that_is_a_link_to_itself(cub: Path) -> None:
    loop = cub / "images" / AUKLET / "C_0001.jpg"
    loop.unlink()
    loop.symlink_to(loop)
    with refused(DataError, r"images\.txt line 3: no file '005\.Crested_Auklet/C_0001\.jpg' in "):
        read_layout(cub)


def test_listed_photo_that_is_not_there(cub: Path) -> None:
    (cub / "images" / ALBATROSS / "B_0009.jpg").unlink()
    with refused(
        DataError,
        r"CUB_200_2011/images\.txt line 2: no file '001\.Black_footed_Albatross/B_0009\.jpg' in "
        r"\S*/CUB_200_2011/images; unpack the official archive again$",
    ):
        read_layout(cub)


@pytest.mark.parametrize("name", ["../images.txt", "/etc/hostname", "a/../../b.jpg", "..\\b.jpg"])
def test_listed_path_that_leaves_the_folder(cub: Path, name: str) -> None:
    change(cub / "images.txt", f"{AUKLET}/C_0001.jpg", name)
    with refused(DataError, r"images\.txt line 3: '\S+' leads out of \S+/images; unpack"):
        read_layout(cub)


@pytest.mark.parametrize("name", [AUKLET, f"{AUKLET}/.", f"{AUKLET}/\0", f"{'a' * 300}/b.jpg"])
def test_listed_path_that_no_file_has(cub: Path, name: str) -> None:
    change(cub / "images.txt", f"{AUKLET}/C_0001.jpg", name)
    with refused(DataError, r"images\.txt line 3: no file '"):
        read_layout(cub)


@pytest.mark.parametrize(
    ("list_name", "old", "new", "message"),
    [
        ("images.txt", "2 001", "2001", r"line 2: expected an image id and a path, got '2001"),
        ("classes.txt", "5 005", "005", r"line 3: expected a class id and a name, got '005\.Cre"),
        ("image_class_labels.txt", "3 5", "3 6", r"line 3: class '6' is not in classes\.txt; unp"),
        ("image_class_labels.txt", "3 5", "1 5", r"line 3: '1' is listed twice; unpack"),
        ("train_test_split.txt", "2 1", "2 yes", r"line 2: expected 1 .*0 \(test\), got 'yes'; un"),
    ],
)
def test_damaged_line_tells_its_number(
    cub: Path, list_name: str, old: str, new: str, message: str
) -> None:
    change(cub / list_name, old, new)
    with refused(DataError, rf"/CUB_200_2011/{list_name} {message}"):
        read_layout(cub)


@pytest.mark.parametrize("list_name", ["image_class_labels.txt", "train_test_split.txt"])
@pytest.mark.parametrize(("text", "image"), [("1 1\n2 1\n", 3), ("1 1\n2 1\n3 1\n4 1\n", 4)])
def test_lists_that_disagree(cub: Path, list_name: str, text: str, image: int) -> None:
    write(cub / list_name, text)
    with refused(
        DataError, rf"image '{image}' is in only one of images\.txt and {list_name}; unpack"
    ):
        read_layout(cub)


@pytest.mark.parametrize(
    "name", ["images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt"]
)
def test_missing_list_is_named(cub: Path, name: str) -> None:
    (cub / name).unlink()
    with refused(
        DataError,
        rf"/CUB_200_2011 looks like CUB-200-2011, but {name} is missing; unpack the official "
        r"archive again, or give a CSV with the columns path,class,split$",
    ):
        read_layout(cub)


def test_lists_without_photos(cub: Path) -> None:
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        write(cub / name, "\n")
    with refused(DataError, r"looks like CUB-200-2011, but its lists are empty; unpack"):
        read_layout(cub)


def test_list_that_is_not_utf8(cub: Path) -> None:
    (cub / "classes.txt").write_bytes("1 Möwe\n".encode("latin-1"))
    with refused(DataError, r"classes\.txt is not UTF-8 text: 'utf-8' codec can't decode.*; unp"):
        read_layout(cub)


def test_list_that_is_a_folder(cub: Path) -> None:
    (cub / "classes.txt").unlink()
    (cub / "classes.txt").mkdir()
    with refused(DataError, r"classes\.txt cannot be read \(Is a directory\); unpack"):
        read_layout(cub)


# --- NABirds

GULL, TERN = "0000139e-21dc-4d0c-bfe1-4cae3c85c829", "0000d9fc-4e02-4c06-a0af-a55cfb16b12b"


SWAN = "00019306-9d83-4334-b255-a447742edce3"


@pytest.fixture
def nabirds(tmp_path: Path) -> Path:
    root = tmp_path / "nabirds"
    lines = []
    for image, folder in ((GULL, "0817"), (TERN, "0860"), (SWAN, "0900")):
        name = f"{folder}/{image.replace('-', '')}.jpg"
        draw(root, f"images/{name}")
        lines.append(f"{image} {name}\n")
    write(root / "images.txt", "".join(lines))
    write(root / "image_class_labels.txt", f"{GULL} 817\n{TERN} 860\n{SWAN} 900\n")
    write(
        root / "classes.txt",
        "0 Birds\n12 Oak Titmouse\n817 Oak Titmouse\n"
        "860 Swainson's Hawk (Dark morph )\n900 Mute Swan\n",
    )
    write(root / "hierarchy.txt", "817 12\n12 0\n860 0\n900 0\n")
    write(root / "train_test_split.txt", f"{GULL} 0\n{TERN} 1\n{SWAN} 1\n")
    return root


def test_nabirds(nabirds: Path) -> None:
    assert name_of(nabirds) == name_of(nabirds.parent) == "NABirds"
    assert brief(read_layout(nabirds), nabirds) == [
        ("images/0817/0000139e21dc4d0cbfe14cae3c85c829.jpg", "Oak Titmouse", "test"),
        (
            "images/0860/0000d9fc4e024c06a0afa55cfb16b12b.jpg",
            "Swainson's Hawk (Dark morph )",
            "train",
        ),
        ("images/0900/000193069d834334b255a447742edce3.jpg", "Mute Swan", "train"),
    ]


def test_two_classes_of_one_name_keep_their_numbers(nabirds: Path) -> None:
    change(nabirds / "classes.txt", "900 Mute Swan", "900 Oak Titmouse")
    assert [photo.label for photo in read_layout(nabirds) or []] == [
        "817 Oak Titmouse",
        "Swainson's Hawk (Dark morph )",
        "900 Oak Titmouse",
    ]


def test_folder_of_several_datasets(cub: Path, nabirds: Path) -> None:
    with refused(DataError, r" holds NABirds and CUB-200-2011; give the folder of one of them$"):
        read_layout(nabirds.parent)
    assert len(read_layout(cub) or []) == len(read_layout(nabirds) or []) == 3


# --- what is none of them


@pytest.mark.parametrize(
    "names",
    [
        ["gull/1.jpg", "tern/2.jpg"],
        ["images/1.jpg", "tern/2.jpg"],
        ["images/1.jpg", "meta/2.jpg", "cars_train/3.jpg"],
        ["car_ims/1.jpg", "train_val_images/2.jpg", "veg200_images/3.jpg"],
        ["CUB_200_2011/1.jpg", "nabirds/2.jpg", "food-101/3.jpg"],
    ],
)
def test_folder_of_classes_is_no_layout(tmp_path: Path, names: list[str]) -> None:
    draw(tmp_path, *names)
    write(tmp_path / "classes.txt", "gull\ntern\n")
    write(tmp_path / "hierarchy.txt", "1 0\n")
    assert find_layout(tmp_path) is None and read_layout(tmp_path) is None
    assert brief(photos.read(tmp_path), tmp_path) == [
        (name, name.split("/")[0], None) for name in sorted(names)
    ]


def test_nothing_is_no_layout(tmp_path: Path) -> None:
    assert read_layout(tmp_path) is None
    assert read_layout(tmp_path / "none") is None
