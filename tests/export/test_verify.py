"""A graph that differs from PyTorch is never written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fgdeploy.core.errors import (
    ExportError,
)
from fgdeploy.export import graph, verify
from fgdeploy.export.exporter import export_bundle
from tests.checks import refused
from tests.export.small import RANDOM, frames_of


def test_a_graph_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_HASH_DIFF", 0.0)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*nothing was written"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_wrong_numbers_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = graph.write_onnx

    def sabotage(*arguments: object) -> graph.GraphFacts:
        facts = original(*arguments)  # type: ignore[arg-type]
        path = arguments[2]
        proto = onnx.load(str(path))
        for tensor in proto.graph.initializer:
            if list(tensor.dims) == [64, 192]:  # the first block's q, k and v
                values = onnx.numpy_helper.to_array(tensor) * 1.05
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
                break
        onnx.save(proto, str(path))
        return facts

    monkeypatch.setattr(graph, "write_onnx", sabotage)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*try another --opset"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")
    assert list(tmp_path.iterdir()) == []


def test_a_near_tie_is_told_from_a_wrong_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MAX_HASH_DIFF", 1e-12)  # below what float32 can keep
    with pytest.raises(ExportError, match=r"own float32 and float64 differ by .*--seed"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")


def test_frames_are_the_photos_first_then_drawn() -> None:
    photos = list(frames_of(3, 32))
    found = verify.frames_for(32, photos, 5)
    assert found.shape == (8, 32, 32, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[:3], photos)
    np.testing.assert_array_equal(found, verify.frames_for(32, photos, 5))
    assert (found != verify.frames_for(32, photos, 6)).any()
    assert len(verify.frames_for(32, list(frames_of(20, 32)))) == 8
    assert min(frame.std() for frame in found[3:]) > 10  # something to choose from


def test_a_further_output_that_differs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hash and code are right, and only the embedding beside them is not."""
    original = graph.write_onnx

    def sabotage(*arguments: object) -> graph.GraphFacts:
        facts = original(*arguments)  # type: ignore[arg-type]
        proto = onnx.load(str(arguments[2]))
        inner = "embedding/before"
        for node in proto.graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == "embedding":
                        names[place] = inner
        two = onnx.numpy_helper.from_array(np.float32(1.01), "embedding/scale")
        proto.graph.initializer.append(two)
        scaled = onnx.helper.make_node("Mul", [inner, "embedding/scale"], ["embedding"], "scaled")
        proto.graph.node.append(scaled)
        onnx.save(proto, str(arguments[2]))
        return facts

    monkeypatch.setattr(graph, "write_onnx", sabotage)
    with refused(ExportError, r"error of embedding is 0\.01.*limit <= 0\.001; nothing was written"):
        export_bundle(RANDOM, tmp_path / "bad.fgd")
    assert list(tmp_path.iterdir()) == []
