"""Whole trainings on photos that are odd: each ends with finite numbers and a word, or an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fgdeploy.core.errors import DataError
from fgdeploy.photos import read
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make

Lists = Mapping[str, Sequence[tuple[Path, str]]]  # class -> (photo, split)


@pytest.fixture
def listed(tmp_path: Path) -> Callable[[Lists], Path]:
    """Return a CSV of such a list; each entry is a file of its own."""

    def write(lists: Lists) -> Path:
        rows = ["path,class,split"]
        for label, entries in lists.items():
            for number, (source, split) in enumerate(entries):
                name = f"{label}-{number}{source.suffix}"
                shutil.copy(source, tmp_path / name)
                rows.append(f"{name},{label},{split}")
        (tmp_path / "split.csv").write_text("\n".join(rows), encoding="utf-8")
        return tmp_path / "split.csv"

    return write


@pytest.fixture
def moths(drawn: Path) -> list[list[Path]]:
    """The drawn photos, eight for each of three classes."""
    classes: dict[str, list[Path]] = {}
    for photo in read(drawn):
        classes.setdefault(str(photo.label), []).append(photo.path)
    return list(classes.values())


def _trained(small: Make, data: Path, folder: Path, **changes: object) -> list[str]:
    """Train, hold every number of the result to be finite, and return what was told."""
    said: list[str] = []
    settings = small(data=data, epochs=1, batch=64, **changes)
    done = train(settings, folder, reporter=Reporter(notify=said.append))
    assert all(np.isfinite(value) for row in done.history for value in row.values())
    assert all(torch.isfinite(value).all() for value in load_file(done.weights).values())
    return [line for line in said if line.startswith("warning: ")]


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_one_photo_a_class(
    small: Make,
    moths: list[list[Path]],
    listed: Callable[[Lists], Path],
    tmp_path: Path,
    recipe: str,
) -> None:
    data = listed({f"k{n}": [(one[0], "train"), (one[1], "test")] for n, one in enumerate(moths)})
    (line,) = _trained(small, data, tmp_path / "run", recipe=recipe, bits=64)
    assert line.startswith("warning: every class: one training photo only")


def test_two_classes(
    small: Make, moths: list[list[Path]], listed: Callable[[Lists], Path], tmp_path: Path
) -> None:
    data = listed({f"k{n}": [(one, "train") for one in moths[n][:3]] for n in (0, 1)})
    (line,) = _trained(small, data, tmp_path / "run", bits=512)
    assert line.startswith("warning: two classes alone, k0 and k1")


def test_labels_that_contradict_in_other_files(
    small: Make, moths: list[list[Path]], listed: Callable[[Lists], Path], tmp_path: Path
) -> None:
    """The same pixels in another format: no file is another's copy, the network sees one photo."""
    again = tmp_path / "again.png"
    Image.open(moths[0][0]).save(again)
    lists = {f"k{n}": [(one, "train") for one in moths[n][:3]] for n in range(3)}
    lists["k1"].append((again, "train"))
    (line,) = _trained(small, listed(lists), tmp_path / "run", bits=8)
    assert "warning: 2 training photos cannot be told from photos of another class" in line
    assert "k0-0.jpg (k0) and" in line and "k1-3.png (k1)" in line


def test_photos_that_are_one_in_other_formats_teach_nothing(
    small: Make, moths: list[list[Path]], listed: Callable[[Lists], Path], tmp_path: Path
) -> None:
    sources = [moths[0][0]]
    for suffix in ("png", "bmp"):
        sources.append(tmp_path / f"again.{suffix}")
        Image.open(moths[0][0]).save(sources[-1])
    data = listed({f"k{n}": [(one, "train")] for n, one in enumerate(sources)})
    with refused(DataError, "the network sees the same in all 3 training photos"):
        train(small(data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_classes_of_copies_and_classes_on_one_side_only(
    small: Make, moths: list[list[Path]], listed: Callable[[Lists], Path], tmp_path: Path
) -> None:
    lists = {
        "copies": [(moths[0][0], "train")] * 3 + [(moths[0][1], "test")],
        "whole": [(one, "train") for one in moths[1][:3]] + [(moths[1][3], "test")],
        "unasked": [(one, "train") for one in moths[2][:2]],
        "unknown": [(moths[2][2], "test")],
    }
    said = _trained(small, listed(lists), tmp_path / "run")
    assert [line.split(":")[1] for line in said] == [
        " class unasked",
        " class unknown",
        " class copies",
    ]


def test_grey_photos_and_photos_of_a_few_pixels(
    small: Make, moths: list[list[Path]], listed: Callable[[Lists], Path], tmp_path: Path
) -> None:
    lists: dict[str, list[tuple[Path, str]]] = {}
    for number in range(3):
        for row in range(2):
            made = tmp_path / f"made-{number}-{row}.png"
            Image.open(moths[number][row]).convert("L").resize((10, 10)).save(made)
            lists.setdefault(f"k{number}", []).append((made, "train"))
    (line,) = _trained(small, listed(lists), tmp_path / "run")
    assert line.startswith("warning: 6 photos of less than 32 pixels on the short side")
