"""Configurations that the protobuf takes and Triton would not load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import DataError
from fgdeploy.triton import ServingSettings, model_config, model_repository
from tests.checks import refused

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")


def _preferred(config: Any) -> None:
    config.dynamic_batching.preferred_batch_size.append(9)


def _dims(config: Any) -> None:
    config.output[0].dims[0] = 8


def _type(config: Any) -> None:
    config.input[0].data_type = 11  # TYPE_FP32


def _name(config: Any) -> None:
    config.name = "other"


def _batch(config: Any) -> None:
    config.max_batch_size = 0


def _warm_up(config: Any) -> None:
    config.model_warmup[0].batch_size = 99


def _file(config: Any) -> None:
    config.model_warmup[0].inputs["frames"].input_data_file = "none.raw"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_preferred, "preferred_batch_size 9 is not 1 to 8"),
        (_dims, "the graph has"),
        (_type, "TYPE_FP32.*and the graph has"),
        (_name, "it is named other, and its folder eet"),
        (_batch, "max_batch_size is 0"),
        (_warm_up, "warm-up batch_1 has 99 frames"),
        (_file, "warm-up file none.raw has None bytes"),
    ],
)
def test_what_the_protobuf_does_not_check(
    harm: Callable[[Any], None], words: str, eet: Bundle
) -> None:
    model = model_repository._model(eet, ServingSettings())
    config = model_config.make(model)
    sizes = {run.file: len(run.content) for run in model.warm_ups}
    model_config.check(config, model, sizes)
    harm(config)
    config = model_config.from_text(model_config.to_text(config))  # which passes it
    with refused(DataError, words):
        model_config.check(config, model, sizes)


def test_batches_worth_waiting_for() -> None:
    assert model_config.preferred_batches((1, 4, 8), 8) == [4, 8]
    assert model_config.preferred_batches((1, 8), 6) == [6]
    assert model_config.preferred_batches((1,), 1) == []


def test_a_single_frame_waits_for_none(eet: Bundle, tmp_path: Path) -> None:
    written = model_repository.write(eet, tmp_path / "repo", ServingSettings(max_batch=1))
    text = (written.path / "config.pbtxt").read_text()
    assert "dynamic_batching" not in text and "max_batch_size: 1" in text
