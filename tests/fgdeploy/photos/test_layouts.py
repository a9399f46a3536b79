from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy import photos
from fgdeploy.core.errors import DataError, MissingDependency
from fgdeploy.photos import Photo
from fgdeploy.photos.layouts import find_layout, read_layout
from tests.checks import refused

Brief = list[tuple[str, str | None, str | None]]


def draw(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (200, 120, 40)).save(path, "JPEG")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def structs(fields: list[str], *rows: tuple[Any, ...]) -> Any:
    """Return a MATLAB struct array, 1 x N, as savemat takes it."""
    return np.array(list(rows), dtype=[(field, object) for field in fields]).reshape(1, -1)


def cells(*names: str) -> Any:
    """Return a MATLAB cell array of strings, 1 x N."""
    return np.array([names], dtype=object)


def save_mat(path: Path, **variables: Any) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, variables)


def brief(found: list[Photo] | None, root: Path) -> Brief:
    assert found is not None
    return [(p.path.relative_to(root).as_posix(), p.label, p.split) for p in found]


def name_of(folder: Path) -> str | None:
    found = find_layout(folder)
    return found[0].name if found else None


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


# --- Stanford Cars

HUMMER, ACURA, RAM = "AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van 2012"
BOX = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]


def save_annos(path: Path, *rows: tuple[Any, Any]) -> None:
    fields = [*BOX, "class", "fname"]
    save_mat(path, annotations=structs(fields, *((39, 116, 569, 375, *row) for row in rows)))


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    root = tmp_path / "stanford_cars"
    draw(root, "cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg")
    devkit = root / "devkit"
    save_mat(devkit / "cars_meta.mat", class_names=cells(HUMMER, ACURA, RAM))
    save_annos(
        devkit / "cars_train_annos.mat", (np.uint8(3), "00001.jpg"), (np.uint8(1), "00002.jpg")
    )
    save_annos(devkit / "cars_test_annos_withlabels.mat", (np.uint8(2), "00001.jpg"))
    save_mat(devkit / "cars_test_annos.mat", annotations=structs(["fname"], ("00001.jpg",)))
    return root


CARS: Brief = [
    ("cars_train/00001.jpg", "Ram C/V Cargo Van 2012", "train"),
    ("cars_train/00002.jpg", "AM General Hummer SUV 2000", "train"),
    ("cars_test/00001.jpg", "Acura RL Sedan 2012", "test"),
]


def test_cars(cars: Path) -> None:
    assert name_of(cars) == "Stanford Cars"
    assert brief(read_layout(cars), cars) == CARS


def test_cars_with_the_test_labels_beside_the_devkit(cars: Path) -> None:
    labels = cars / "devkit" / "cars_test_annos_withlabels.mat"
    labels.rename(cars / labels.name)
    assert brief(read_layout(cars), cars) == CARS


def test_cars_without_test_labels(cars: Path) -> None:
    (cars / "devkit" / "cars_test_annos_withlabels.mat").unlink()
    with refused(
        DataError,
        r"but devkit/cars_test_annos_withlabels\.mat is missing; download it, "
        r"as it is not part of the devkit's archive$",
    ):
        read_layout(cars)


def test_cars_without_the_devkit(tmp_path: Path) -> None:
    draw(tmp_path, "cars_train/00001.jpg", "cars_test/00001.jpg")
    with refused(DataError, r"looks like Stanford Cars, but devkit/cars_meta\.mat is missing; unp"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((np.uint8(1), "9.jpg"), r"\(1\): no file '9\.jpg' in \S+/cars_train; unpack"),
        ((np.uint8(1), "../cars_test/00001.jpg"), r"\(1\): '\.\./cars_test/00001\.jpg' leads out"),
        ((np.uint8(4), "00001.jpg"), r"\(1\): expected a class in 1\.\.3, got 4; unpack"),
        ((np.uint8(0), "00001.jpg"), r"\(1\): expected a class in 1\.\.3, got 0; unpack"),
        ((np.uint8(1), 7), r"\(1\)\.fname: expected one str, got .*; unpack"),
        ((1.5, "00001.jpg"), r"\(1\)\.class: expected one int, got .*; unpack"),
        ((np.array([1, 2]), "00001.jpg"), r"\(1\)\.class: expected one int, got '\[\[1 2\]\]'; un"),
    ],
)
def test_damaged_car_tells_its_entry(cars: Path, row: tuple[Any, Any], message: str) -> None:
    save_annos(cars / "devkit" / "cars_train_annos.mat", row)
    with refused(DataError, rf"/cars_train_annos\.mat annotations{message}"):
        read_layout(cars)


def test_mat_without_the_structs(cars: Path) -> None:
    save_mat(cars / "devkit" / "cars_train_annos.mat", other=1)
    with refused(DataError, r"annos\.mat: expected structs 'annotations' with fname, class; unp"):
        read_layout(cars)
    save_mat(cars / "devkit" / "cars_train_annos.mat", annotations=structs(["class"], (1,)))
    with refused(DataError, r"annos\.mat: expected structs 'annotations' with fname; unpack"):
        read_layout(cars)
    save_mat(cars / "devkit" / "cars_meta.mat", other=1)
    with refused(DataError, r"cars_meta\.mat: expected the strings 'class_names'; unpack"):
        read_layout(cars)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"MATLAB 5.0 MAT-file" + b" " * 200])
def test_mat_that_is_none(cars: Path, content: bytes) -> None:
    (cars / "devkit" / "cars_meta.mat").write_bytes(content)
    with refused(DataError, r"cars_meta\.mat cannot be read as a MATLAB file: .*; unpack"):
        read_layout(cars)


def test_mat_that_is_cut_short(cars: Path) -> None:
    path = cars / "devkit" / "cars_train_annos.mat"
    path.write_bytes(path.read_bytes()[:-40])
    with refused(DataError, r"cars_train_annos\.mat cannot be read as a MATLAB file: .*; unpack"):
        read_layout(cars)


def test_cars_without_scipy(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with refused(
        MissingDependency,
        r"reading Stanford Cars needs the package scipy, which is not installed; "
        r'run: pip install "fgdeploy\[train\]"',
    ):
        read_layout(cars)


@pytest.fixture
def cars_in_one(tmp_path: Path) -> Path:
    draw(tmp_path, "car_ims/000001.jpg", "car_ims/000002.jpg")
    save_mat(
        tmp_path / "cars_annos.mat",
        annotations=structs(
            ["relative_im_path", *BOX, "class", "test"],
            ("car_ims/000001.jpg", 112, 7, 853, 717, np.uint8(2), np.uint8(0)),
            ("car_ims/000002.jpg", 48, 24, 441, 202, np.uint8(1), True),
        ),
        class_names=cells(HUMMER, ACURA),
    )
    return tmp_path


def test_cars_in_one_folder(cars_in_one: Path) -> None:
    assert name_of(cars_in_one) == "Stanford Cars"
    assert brief(read_layout(cars_in_one), cars_in_one) == [
        ("car_ims/000001.jpg", "Acura RL Sedan 2012", "train"),
        ("car_ims/000002.jpg", "AM General Hummer SUV 2000", "test"),
    ]


def test_cars_in_one_without_the_photos(cars_in_one: Path) -> None:
    (cars_in_one / "car_ims").rename(cars_in_one / "cars")
    with refused(DataError, r"looks like Stanford Cars, but car_ims is missing; unpack"):
        read_layout(cars_in_one)


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
