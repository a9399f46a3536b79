"""Stacks of blocks: whole graphs that run in every precision, of the depth that was asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.tuning import stack_graph

SHAPE = Geometry(width=64, depth=3, patch_size=16, grid=(4, 4))


@pytest.mark.parametrize("feed_only", [False, True])
@pytest.mark.parametrize(("int8", "unsigned"), [(False, False), (True, False), (True, True)])
def test_they_run(feed_only: bool, int8: bool, unsigned: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = stack_graph.graph(SHAPE, 2, 5, 3, feed_only, int8, unsigned)
    onnx.checker.check_model(model, full_check=True)
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["Softmax"] == (0 if feed_only else 3)
    assert ops["QuantizeLinear"] == int8 * (6 + 3 if feed_only else 6 + 6)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    code, hashed = session.run(["code", "hash"], {"frames": frames})
    assert (code.shape, code.dtype, hashed.shape) == ((2, 1), np.uint8, (2, 8))
    assert np.isfinite(hashed).all()
