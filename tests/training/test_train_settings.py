"""What a training may be asked to do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.photos import Columns
from tests.checks import refused
from tests.training.conftest import Make


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"bits": 4}, "bits"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch": 1}, "--batch 1"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"lr": math.nan}, "--lr nan"),
        ({"val_fraction": 1.0}, "--val-fraction 1.0"),
        ({"seed": -1}, "--seed -1"),
        ({"workers": -1}, "--workers -1"),
        ({"precision": "int8"}, "--precision 'int8'"),
    ],
)
def test_settings_that_can_never_be_right(small: Make, changes: Any, words: str) -> None:
    with refused(UsageError, words):
        small(**changes)


def test_a_part_is_written_down_as_runs_of_before_call_it(small: Make) -> None:
    for given, written in ((None, 0.2), (0.0, 0.0), (0.3, 0.3)):
        entry = small(val_fraction=given).to_json()
        assert entry["holdout"] == written and "val_fraction" not in entry


def test_options_and_weights_reach_the_network(small: Make, tmp_path: Path) -> None:
    settings = small(options={"stages": "2:8"}, seed=3, crop=0.9).network()
    assert settings.options == {"stages": "2:8"}
    assert (settings.weights, settings.checkpoint, settings.seed) == ("random", None, 3)
    assert (settings.backbone, settings.image_size, settings.crop) == ("test_vit", 64, 0.9)
    (tmp_path / "c.pth").touch()
    given = small(weights=str(tmp_path / "c.pth")).network()
    assert (given.checkpoint, given.weights) == (tmp_path / "c.pth", "pretrained")
    renamed = small(weights=str(tmp_path / "c.pth"), renames=("a=b",))
    assert renamed.network().renames == ("a=b",) and given.renames == ()
    assert json.loads(json.dumps(renamed.to_json()))["renames"] == ["a=b"]
    with refused(UsageError, "--weights nowhere.pth: expected pretrained, random or a checkpoint"):
        small(weights="nowhere.pth").network()


def test_settings_are_json_and_keep_what_was_asked(small: Make, drawn: Path) -> None:
    entry = json.loads(json.dumps(small(without=frozenset({"b", "a"})).to_json()))
    assert entry["options"] == {"stages": "2:8,4:4"}
    assert entry["without"] == ["a", "b"]
    assert entry["data"] == str(drawn)


def test_what_says_how_a_list_is_read_is_written_down_where_it_is_not_usual(small: Make) -> None:
    assert not {"columns", "allow_leaks", "renames"} & small().to_json().keys()  # as runs of before
    entry = json.loads(json.dumps(small(columns=Columns("file"), allow_leaks=True).to_json()))
    assert entry["columns"] == {"path": "file", "label": "class", "split": None, "bit_depth": None}
    assert entry["allow_leaks"] is True
