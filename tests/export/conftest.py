"""Small real exports, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fgdeploy.export.exporter import Exported, export_bundle
from fgdeploy.models.backbone import vit
from tests.export.small import RANDOM, TINY


@pytest.fixture(scope="session")
def random_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """EET on a random small ViT at 64 pixels with a 12-bit LSH head."""
    return export_bundle(RANDOM, tmp_path_factory.mktemp("export") / "random.fgd")


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
