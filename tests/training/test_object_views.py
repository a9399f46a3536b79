"""Views of a photo with a box, pixel by pixel, and which trainings get boxes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.demo.moths import write_moths
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import FAST
from fgdeploy.photos.boxes import Box
from fgdeploy.training import division
from fgdeploy.training.object_views import blurred_out, boxes_of, cut_out, has_background
from fgdeploy.training.object_views import object_views as views
from fgdeploy.training.train_settings import TrainSettings
from tests.checks import refused

PAPER = registry.get("dva").recipe("paper")
GREY, RED = (90, 90, 90), (250, 10, 20)


def _photo(width: int = 40, height: int = 20) -> tuple[Image.Image, Box]:
    """Return a grey photo with a red object of 8 x 4 pixels, and its box."""
    image = Image.new("RGB", (width, height), GREY)
    image.paste(RED, (10, 6, 18, 10))
    return image, Box(10 / width, 6 / height, 18 / width, 10 / height)


def test_an_object_lies_in_a_square_of_its_mean_colour() -> None:
    image, box = _photo()
    image.putpixel((11, 7), (250 - 32 * 5, 10, 20))
    square = np.asarray(cut_out(image, box))
    assert square.shape == (8, 8, 3)
    assert (square[[0, 1, 6, 7]] == (245, 10, 20)).all()
    assert (square[2:6] == np.asarray(image)[6:10, 10:18]).all()


def test_only_the_object_is_unclear_in_its_background() -> None:
    image, box = _photo()
    found, before = np.asarray(blurred_out(image, box), int), np.asarray(image, int)
    changed = (found != before).any(axis=2)
    assert not changed[:6].any() and not changed[10:].any()
    assert not changed[:, :10].any() and not changed[:, 18:].any()
    assert changed[6:10, 10:18].any()
    # a window of 5 x 5: at a corner of the object 3 x 3 of it are red
    assert found[6, 10].tolist() == pytest.approx(
        [(9 * red + 16 * grey) / 25 for red, grey in zip(RED, GREY, strict=True)], abs=1
    )


@pytest.mark.parametrize(
    ("box", "there"),
    [
        (None, False),
        (Box(0, 0, 1, 1), False),
        (Box(0, 0, 0.5, 1), False),
        (Box(0, 0, 0.49, 1), True),
    ],
)
def test_there_is_a_background_where_most_of_the_photo_is_one(box: Box | None, there: bool) -> None:
    assert has_background(box) == there
    made = views(16, (224 / 256) ** 2)(_photo()[0], box)
    assert list(made) == ["image", "object", "background"]
    assert all(view.shape == (3, 16, 16) and view.dtype == torch.uint8 for view in made.values())
    assert bool(made["image"].any()) and bool(made["object"].any()) == (box is not None)
    assert bool(made["background"].any()) == there


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 2, 4, size=64)


def _chosen(data: Path, **changes: Any) -> tuple[Any, list[str]]:
    said: list[str] = []
    settings = TrainSettings(data, method="dva", recipe="paper", **changes)
    divided = division.divide(data, None, 0, True)
    return boxes_of(divided, settings, PAPER, said.append), said


def _listed(data: Path, folder: Path, split: str, box: str = "0,0,.5,.5") -> Path:
    divided = division.divide(data, None, 0, True)
    rows = [f"{photo.path},{box}\n" for photo in getattr(divided, split)]
    (folder / "boxes.csv").write_text("path,x0,y0,x1,y1\n" + "".join(rows), encoding="utf-8")
    return folder / "boxes.csv"


def test_a_recipe_that_looks_at_objects_needs_boxes(data: Path, tmp_path: Path) -> None:
    with refused(UsageError, "says where they are: pass --boxes FILE, or train with --recipe fast"):
        _chosen(data)
    found, said = _chosen(data, boxes=_listed(data, tmp_path, "train"))
    assert set(found) == {Box(0, 0, 0.5, 0.5)}
    assert said == [
        f"views of {len(found)} objects, and of {len(found)} backgrounds where the object takes "
        "less than half of the photo"
    ]
    with refused(DataError, "boxes.csv: no training photo has a box; give boxes of these too"):
        _chosen(data, boxes=_listed(data, tmp_path, "test"))


def test_boxes_in_vain_are_refused(data: Path, tmp_path: Path) -> None:
    path = _listed(data, tmp_path, "train")
    settings = TrainSettings(data, method="dva", boxes=path)
    divided = division.divide(data, None, 0, True)
    with refused(UsageError, "boxes.csv: recipe fast looks at whole photos; leave it out, or name"):
        boxes_of(divided, settings, FAST, print)
    plain = dataclasses.replace(settings, boxes=None)
    assert boxes_of(divided, plain, FAST, print) is None
    assert "boxes" not in plain.to_json() and settings.to_json()["boxes"] == str(path)
