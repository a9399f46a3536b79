"""A small set of drawn photos and settings for trainings that take a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fgdeploy.demo.moths import write_moths
from fgdeploy.training.train_settings import TrainSettings

Make = Callable[..., TrainSettings]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Run small models in one thread: more only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sub-species of eight photos, as a CSV with splits."""
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 8, size=96)


@pytest.fixture
def small(drawn: Path) -> Make:
    """Return settings of a training on `drawn` with a small random ViT; arguments replace some."""

    def make(**changes: Any) -> TrainSettings:
        settings = TrainSettings(
            data=drawn,
            backbone="test_vit",
            weights="random",
            image_size=64,
            options={"stages": "2:8,4:4"},
            bits=16,
            epochs=2,
            batch=5,
        )
        return dataclasses.replace(settings, **changes)

    return make
