"""Small real exports, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import Exported, export_bundle
from fgdeploy.models import vit
from fgdeploy.models.stages import Stage

TINY = "deit_tiny_patch16_224"
MINI = "test_vit"  # timm's own test model: 6 blocks of width 64
STAGES = (Stage(2, 8), Stage(4, 4), Stage(5, 2))


@pytest.fixture(scope="session")
def random_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """EET on a random small ViT at 64 pixels with a 12-bit LSH head."""
    settings = ExportSettings(
        backbone=MINI, weights="random", image_size=64, stages=STAGES, bits=12, head="lsh"
    )
    return export_bundle(settings, tmp_path_factory.mktemp("export") / "random.fgd")


@pytest.fixture(scope="session")
def authors_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as EET's authors would save it: 224 pixels, 5 classes, 24 bits, DDP prefix."""
    state = vit.create(TINY, 224, classes=5, seed=3).state_dict()
    generator = torch.Generator().manual_seed(4)
    state["head_hash.weight"] = torch.randn(24, 5, generator=generator)
    state["head_hash.bias"] = torch.randn(24, generator=generator) * 0.1
    state["head.weight"] = torch.randn(5, 192, generator=generator) * 0.1
    path = tmp_path_factory.mktemp("checkpoint") / "eet_authors.pth"
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    return path
