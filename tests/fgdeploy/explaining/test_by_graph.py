"""A deployed graph tells by its own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.explaining.by_graph import GraphLooker, shows
from tests.conftest import toy_manifest
from tests.fgdeploy.explaining.showing import quarters, write_showing_bundle


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_it_shows_the_outputs_of_each_photo(tmp_path: Path, backend: str) -> None:
    bundle = open_bundle(write_showing_bundle(tmp_path / "s.fgd"))
    assert shows(bundle.manifest) and not shows(toy_manifest())
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    with GraphLooker(bundle, backend) as looker:
        assert looker.describe().startswith(f"outputs of the graph, {backend} fp32")
        found = looker.look(frames)
    assert len(found) == 3
    for frame, seen in zip(frames, found, strict=True):
        want = quarters(frame)
        assert list(seen.maps) == ["similarity"] and list(seen.boxes) == ["box"]
        np.testing.assert_allclose(seen.maps["similarity"], want, rtol=1e-5)
        np.testing.assert_allclose(seen.boxes["box"], [0, 0, *want[1] / 8], rtol=1e-5)
        assert seen.kept == () and seen.rollout is None
