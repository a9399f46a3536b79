"""PyTorch as an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fgdeploy.core.errors import (
    EngineError,
)
from fgdeploy.engines import open_engine
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import Exported, export_bundle, rebuild
from fgdeploy.models import assembly
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from tests.checks import refused
from tests.export.small import RANDOM, frames_of


def test_it_runs_the_published_network(random_export: Exported) -> None:
    engine = rebuild(random_export.bundle, None)
    frames = frames_of(3, 64)
    found = engine.run(frames)
    encoder = assembly.choose(RANDOM.network()).encoder()
    network = Network(encoder, NoHead()).published()
    with torch.no_grad():
        expected = network(network.pixels(torch.tensor(frames).permute(0, 3, 1, 2))).embedding
    assert found.embedding is not None
    np.testing.assert_array_equal(found.embedding, expected.numpy())
    np.testing.assert_array_equal(np.packbits(found.hash > 0, axis=1), found.code)
    assert (engine.backend, engine.precision) == ("pytorch", "fp32")


def test_float64_tells_rounding_from_error(random_export: Exported) -> None:
    engine = rebuild(random_export.bundle, None)
    frames = frames_of(3, 64)
    exact = engine.in_float64(frames)
    assert exact.dtype == np.float64
    assert 0 < np.abs(engine.run(frames).hash - exact).max() < 1e-4
    # The engine itself stays in float32.
    assert engine.run(frames).hash.dtype == np.float32


def test_it_refuses_what_every_engine_refuses(random_export: Exported) -> None:
    with refused(EngineError, "expected frames"):
        rebuild(random_export.bundle, None).run(frames_of(1, 32))


def test_extras_are_rebuilt_too(authors_checkpoint: Path, tmp_path: Path) -> None:
    settings = ExportSettings(checkpoint=authors_checkpoint, image_size=64, logits=True)
    bundle = export_bundle(settings, tmp_path / "eet.fgd").bundle
    frames = frames_of(2, 64)
    with open_engine(bundle, "onnxruntime") as engine:
        found = engine.run(frames)
    expected = rebuild(bundle, authors_checkpoint).run(frames)
    assert found.logits is not None and expected.logits is not None
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
