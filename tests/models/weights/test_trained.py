"""The JSON beside trained weights: what it must hold, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.weights import trained
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.photos.images import Preprocess
from tests.checks import refused
from tests.mutants import PYTHON_WORDS, mutants

_CONFIG = TrainedConfig(
    method="eet",
    backbone="test_vit",
    image_size=64,
    bits=16,
    options=EETOptions((Stage(2, 8), Stage(4, 4))),
    preprocess=Preprocess(64, 73, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    classes=("crow", "Rabe, großer", "\u9e26"),
    training={"recipe": "fast", "scores": {"asym_sign": 0.5}},
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return saved weights with their config beside them."""
    path = tmp_path / "model.safetensors"
    trained.save(path, {"a": torch.arange(6).view(2, 3), "b": torch.ones(1)}, _CONFIG)
    return path


def _edit(weights: Path, /, **changes: Any) -> None:
    path = weights.with_suffix(".json")
    entry = json.loads(path.read_text(encoding="utf-8"))
    entry.update(changes)
    path.write_text(json.dumps(entry), encoding="utf-8")


def test_round_trip(weights: Path) -> None:
    from fgdeploy.models.weights.checkpoint import read

    assert trained.load_config(weights) == _CONFIG
    tensors = read(weights)
    assert torch.equal(tensors["a"], torch.arange(6).view(2, 3))
    assert sorted(entry.name for entry in weights.parent.iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_views_of_one_storage_are_saved_whole(tmp_path: Path) -> None:
    both = torch.arange(8.0)
    tensors = {"left": both[:4], "all": both.view(2, 4).T}
    trained.save(tmp_path / "m.safetensors", tensors, _CONFIG)
    from safetensors.torch import load_file

    held = load_file(tmp_path / "m.safetensors")
    assert torch.equal(held["left"], both[:4])
    assert torch.equal(held["all"], both.view(2, 4).T)


def test_a_folder_means_its_model(weights: Path) -> None:
    assert trained.locate(weights.parent) == weights
    assert trained.locate(weights) == weights


def test_weights_without_config_have_none(tmp_path: Path) -> None:
    assert trained.load_config(tmp_path / "x.safetensors") is None
    (tmp_path / "x.json").write_text('{"somebody": "else"}')
    assert trained.load_config(tmp_path / "x.safetensors") is None


def test_other_weights_are_noticed(weights: Path) -> None:
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    with refused(CheckpointError, r"describes other weights than model\.safetensors holds now"):
        trained.load_config(weights)


def test_another_schema_is_refused(weights: Path) -> None:
    _edit(weights, schema_version=3)
    with refused(CheckpointError, r"schema version 3 is not known here \(expected 2\)"):
        trained.load_config(weights)


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"bits": "16"}, 'bits is "16", expected a whole number from 8 to 512'),
        ({"bits": 0}, "bits is 0, expected"),
        ({"image_size": True}, "image_size is true, expected"),
        ({"image_size": 10**30}, "image_size is 10+, expected"),
        ({"image_size": -1}, "image_size is -1, expected a whole number from 1"),
        ({"options": {"stages": [[2]]}}, "stages.0 is a list of 1, expected one of 2"),
        ({"options": {"stages": 3}}, "stages is 3, expected a list"),
        ({"options": {"keep": 3}}, "no option 'keep'"),
        ({"options": {"transposed_mask": 1}}, "option transposed_mask is 1, expected such as"),
        ({"options": None}, "options is null, expected an object"),
        ({"schema_version": 1, "stages": [[2]]}, "stages.0 is a list of 1, expected one of 2"),
        ({"schema_version": 1, "stages": 3}, "stages is 3, expected a list"),
        ({"preprocess": {}}, "no entry 'preprocess.size'"),
        ({"classes": None}, "classes is null, expected a list"),
        ({"weights": {}}, "no entry 'weights.sha256'"),
        ({"training": [1]}, "damaged"),
    ],
)
def test_damaged_configs(weights: Path, changes: dict[str, Any], words: str) -> None:
    _edit(weights, **changes)
    with refused(CheckpointError, words):
        trained.load_config(weights)


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1,', "\ufffd[" * 9])
def test_what_is_no_json(weights: Path, text: str) -> None:
    weights.with_suffix(".json").write_text(text, encoding="utf-8")
    with refused(CheckpointError, "is not readable JSON"):
        trained.load_config(weights)


@pytest.mark.parametrize("stages", [[], [[2, 8], [4, 4]]])
def test_a_config_of_schema_1_is_still_read(weights: Path, stages: list[list[int]]) -> None:
    """It had `stages` where options are now; EET was all there was."""
    path = weights.with_suffix(".json")
    entry = json.loads(path.read_text(encoding="utf-8"))
    del entry["options"]
    path.write_text(json.dumps({**entry, "schema_version": 1, "stages": stages}), encoding="utf-8")
    options = EETOptions(tuple(Stage(block, keep) for block, keep in stages))
    assert trained.load_config(weights) == dataclasses.replace(_CONFIG, options=options)


def test_a_config_of_schema_1_without_stages_is_damaged(weights: Path) -> None:
    _edit(weights, schema_version=1)
    with refused(CheckpointError, "is damaged: no entry 'stages'"):
        trained.load_config(weights)


def test_every_value_replaced_by_every_other_kind(weights: Path) -> None:
    entry, read = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8")), 0
    for changed in mutants(entry):
        try:
            config = trained._parse(changed)
        except (KeyError, TypeError, ValueError, UsageError) as error:
            assert not re.search(PYTHON_WORDS, str(error)), error
            continue
        assert isinstance(config.training, dict)
        read += 1
    assert read > 10


def test_a_method_that_is_not_known_here(weights: Path) -> None:
    _edit(weights, method="dino")
    with refused(CheckpointError, r"model\.json: trained as 'dino', which is no method here"):
        trained.load_config(weights)


def test_a_training_that_is_not_finished_says_so(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"")
    with refused(CheckpointError, r"is a training that is not finished; go on .* --resume"):
        trained.locate(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert trained.locate(tmp_path) == tmp_path / "model.safetensors"
