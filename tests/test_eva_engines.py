"""Rotary positions in the engines: exported with EET, held to PyTorch, calibrated."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import timm
import torch

from fgdeploy.calibration import linears
from fgdeploy.demo.moths import write_moths
from fgdeploy.export import verify
from fgdeploy.export.exporter import rebuild
from tests.exported import (
    Case,
    Exports,
    calibrated,
    hold_precisions,
    hold_to_pytorch,
    hold_what_decides,
)

# Short and narrow: a bias in parts, halves of heads, registers, a gated MLP; projections apart,
# norms within, pairs of channels.
SHORT = {
    "short_plus_dinov3_qkvb": timm.models.eva.vit_small_plus_patch16_dinov3_qkvb,
    "short_eva02_clip": timm.models.eva.eva02_base_patch16_clip_224,
}
SIZE, STAGES = 64, ("stages=2:9,3:4",)


@pytest.fixture(scope="module", autouse=True)
def backbones() -> Iterator[None]:
    from timm.models import _registry

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, full in SHORT.items():
            made = functools.partial(full, embed_dim=64, depth=4, num_heads=2)
            patch.setitem(_registry._model_entrypoints, name, made)
        yield


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.mark.parametrize("backbone", SHORT)
def test_engines_give_what_pytorch_gives(backbone: str, exports: Exports) -> None:
    bundle = exports.of(Case("eet", STAGES, backbone, SIZE))
    hold_to_pytorch(bundle, rebuild(bundle, None), verify.frames_for(SIZE, []))
    assert bundle.manifest.prefix_tokens == (5 if "dinov3" in backbone else 1)
    graph = onnx.load(bundle.graph("fp32"))
    batches = {side.dim_param for value in graph.graph.input for side in _sides(value)} - {""}
    assert len(batches) == 1
    # Sines and cosines are constants, of which the rows that stay are gathered.
    ops = {node.op_type for node in graph.graph.node}
    assert "Gather" in ops and not ops & {"Sin", "Cos", "GatherND", "ScatterND"}
    # One product makes queries, keys and values, also where they lie apart in the file.
    names = {linear.name for linear in linears.find(graph)}
    assert "blocks.1.attn.qkv" in names and not any(name.endswith("q_proj") for name in names)


def _sides(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def test_int8_rounds_layers_and_leaves_angles_alone(exports: Exports, tmp_path: Path) -> None:
    photos = write_moths(tmp_path / "drawn", 3, 6, size=80)
    bundle = calibrated(exports.of(Case("eet", STAGES, "short_eva02_clip", SIZE)), photos)
    hold_precisions(bundle, SIZE)
    assert hold_what_decides(bundle) == {"steps.2.select", "steps.3.select"}
    graph = onnx.load(bundle.graph("int8")).graph
    rounded = {
        name
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.output
    }
    turning = [node for node in graph.node if ".attn.turn/" in node.name]
    assert turning and rounded
    assert not any(rounded & set(node.input) for node in turning)
