"""Stanford Cars, in both forms that it is given in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.core.errors import DataError, MissingDependency
from fgdeploy.photos.layouts import read_layout
from tests.checks import refused
from tests.fgdeploy.photos.datasets import (
    Brief,
    brief,
    cells,
    draw,
    name_of,
    save_mat,
    structs,
)

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
