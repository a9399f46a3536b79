"""Timing against the dense ViT: the same products, the batches that there is patience for."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

from fgdeploy.export import against_dense, dense_vit
from fgdeploy.export.against_dense import AgainstDense
from fgdeploy.export.exporter import Exported
from fgdeploy.models import plan
from fgdeploy.models.backbone.vit import Geometry


def test_a_pace() -> None:
    assert AgainstDense(8, 30.0, 20.0).times == 1.5


@pytest.mark.parametrize(("patience_ms", "batches"), [(1e9, [1, 8]), (0.0, [1])])
def test_both_are_timed(random_export: Exported, patience_ms: float, batches: list[int]) -> None:
    found = against_dense.measure(random_export.bundle, patience_ms)
    assert [one.batch for one in found] == batches
    assert all(one.dense_ms > 0 and one.exported_ms > 0 for one in found)


def test_it_computes_what_the_plain_vit_computes() -> None:
    shape = Geometry(width=64, depth=3, patch_size=16, grid=(4, 4), prefix_tokens=2)
    model = dense_vit.graph(shape, heads=2, image_size=64)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    shapes |= {item.name: list(item.dims) for item in inferred.initializer}
    macs = 0
    for node in inferred.node:
        if node.op_type == "MatMul":
            left, right = (shapes[name] for name in node.input)
            rows = left[-3] * left[-2] if len(left) == 4 else left[-2]
            macs += rows * left[-1] * right[-1]
        elif node.op_type == "Conv":
            macs += shape.patches * 3 * 16 * 16 * shape.width
    assert macs == plan.dense(shape).macs
    ops = Counter(node.op_type for node in inferred.node)
    assert (ops["Softmax"], ops["Erf"], ops["LayerNormalization"]) == (3, 3, 7)


def test_its_operators_are_those_of_an_export(random_export: Exported) -> None:
    exported = onnx.load(random_export.bundle.graph())
    known = {node.op_type for node in exported.graph.node}
    shape = Geometry(width=64, depth=1, patch_size=16, grid=(4, 4))
    ops = {node.op_type for node in dense_vit.graph(shape, 2, 64).graph.node}
    assert ops - known == {"Pad"}  # which puts CLS before the patches
