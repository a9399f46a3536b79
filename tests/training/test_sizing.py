"""How long the recipe `fast` trains: by the set, by a first look, and never against the user."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.models.methods.base import FAST
from fgdeploy.models.methods.eet import PAPER
from fgdeploy.training.sizing import LOG_ROWS, SetFacts, sized
from fgdeploy.training.train_settings import TrainSettings


def _sized(photos: int, told: float | None, width: int = 192, **asked: Any) -> tuple[int, int, Any]:
    """Return (steps, passes, recipe) of a set."""
    made = dataclasses.replace(FAST, **asked)
    recipe = sized(made, SetFacts(photos, 40, told), TrainSettings(Path("x"), **asked), width)
    passes = recipe.epochs * recipe.passes
    return passes * math.ceil(photos / recipe.batch), passes, recipe


@pytest.mark.parametrize(
    ("photos", "told", "least", "most"),
    [
        (800, 0.1, 480, 520),  # of another kind
        (800, 0.82, 160, 180),  # told apart already
        (800, 0.45, 300, 360),
        (100, 0.82, 160, 200),
        (10, 0.8, 160, 175),
        (2999, 0.74, 564, 660),  # six passes
        (100_000, 0.8, 18_750, 18_750),
    ],
)
def test_steps_follow_from_photos_and_from_how_well_they_are_told_apart(
    photos: int, told: float, least: int, most: int
) -> None:
    steps, _, recipe = _sized(photos, told)
    assert least <= steps <= most
    assert recipe.epochs <= LOG_ROWS + 1
    assert 1 <= recipe.warmup <= steps // 4


def test_what_the_user_gives_stays() -> None:
    steps, passes, recipe = _sized(800, 0.1, epochs=3)
    assert (passes, recipe.epochs, recipe.passes) == (3, 3, 1)
    assert recipe.warmup == steps // 8
    assert _sized(800, 0.1, batch=64)[1] == _sized(800, 0.1)[1]  # as many photos in all
    assert _sized(800, 0.1, lr=0.5)[2].lr == 0.5
    assert _sized(800, 0.1, warmup=7)[2].warmup == 7


def test_wider_networks_take_smaller_steps() -> None:
    assert _sized(800, 0.5)[2].lr == FAST.lr
    assert _sized(800, 0.5, width=64)[2].lr == FAST.lr
    assert _sized(800, 0.5, width=768)[2].lr == pytest.approx(FAST.lr / 4)


def test_a_set_of_single_photos_lies_in_the_middle() -> None:
    assert SetFacts(40, 40, None).hardness == pytest.approx(0.5)
    assert "no class has two photos" in SetFacts(40, 40, None).said()
    assert "82%" in SetFacts(40, 4, 0.82).said()


def test_published_recipes_are_left_as_they_are() -> None:
    given = sized(PAPER, SetFacts(100, 4, 0.1), TrainSettings(Path("x")), 384)
    assert given == PAPER
