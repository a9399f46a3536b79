"""Which layers INT8 is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from fgdeploy.calibration import linears
from fgdeploy.calibration.linears import Linear
from tests.calibration.graphs import PATCH, SIDE, TOKENS, WIDTH, Draft, block, maker, tap

BLOCK = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def _by_name(model: onnx.ModelProto) -> dict[str, Linear]:
    return {one.name: one for one in linears.find(model)}


def test_of_an_export_all_but_cls_only_layers_and_the_head(model: onnx.ModelProto) -> None:
    found = linears.find(model)
    names = ["embed.conv", *(f"blocks.{block}.{name}" for block in range(5) for name in BLOCK)]
    assert [one.name for one in found[:-1]] == names
    # Keys and values of the last block: they are made for all tokens, its query for CLS alone.
    last = found[-1]
    assert (last.fan_in, last.fan_out) == (64, 128)
    assert maker(model, last.x).name.startswith("blocks.5.norm1")
    assert all((one.bias is not None) for one in found)
    assert [one.is_patch_embedding for one in found] == [True] + [False] * 21


def test_what_is_known_of_a_layer() -> None:
    found = _by_name(block())
    assert list(found) == ["embed", "qkv", "proj", "fc1", "fc2"]
    assert found["fc2"] == Linear(
        "fc2", "fc2/fc2.product", "fc2/fc2", "gelu", "fc2.weight", 2 * WIDTH, WIDTH
    )
    assert found["embed"] == Linear(
        "embed", "embed/patches", "embed/patches", "planes", "embed.weight", 48, WIDTH, True
    )


def test_without_a_bias() -> None:
    found = _by_name(block(biased=False))
    assert [one.bias for one in found.values()][1:] == [None] * 4
    assert found["proj"].node == "proj/proj"


def _single(width: int, out: int, tokens: int | str = TOKENS, **changes: Any) -> onnx.ModelProto:
    """Return a graph of one product of x [n, tokens, width]; changes: of its bias."""
    draft = Draft()
    draft.op("Relu", ["x"], "tokens")
    draft.linear("tokens", "layer", width, out, biased=False)
    bias = draft.constant("bias", changes.get("bias", np.ones(out)))
    draft.op("Add", [bias, "layer"], "y", "layer")
    outputs = {"y": ["n", tokens, out]} | changes.get("outputs", {})
    return draft.model({"x": ["n", tokens, width]}, outputs)


@pytest.mark.parametrize(
    ("width", "out", "tokens", "count"),
    [
        (16, 16, 5, 1),
        (15, 64, 5, 0),
        (64, 15, 5, 0),
        (64, 64, 1, 0),  # one row
        (64, 64, "tokens", 1),  # not known before it runs
    ],
)
def test_small_layers_and_single_rows_stay(
    width: int, out: int, tokens: int | str, count: int
) -> None:
    assert len(linears.find(_single(width, out, tokens))) == count


def test_only_a_vector_is_a_bias() -> None:
    assert linears.find(_single(16, 16))[0].bias == "layer/y"
    for other in (np.ones((TOKENS, 16)), np.float32(1), np.ones((1, 16))):
        assert linears.find(_single(16, 16, bias=other))[0].bias is None


def test_a_product_that_others_read_keeps_its_sum() -> None:
    seen = _single(16, 16, outputs={"layer": ["n", TOKENS, 16]})
    assert linears.find(seen)[0].bias is None
    assert _by_name(tap(block(), "fc1.product"))["fc1"].bias is None


def test_two_products_of_one_module_have_names_of_their_own() -> None:
    draft = Draft()
    draft.op("Relu", ["x"], "tokens")
    weight = draft.constant("w", np.ones((16, 16)))
    for name in ("one", "two"):
        draft.op("MatMul", ["tokens", weight], name, "attn")
    shape = ["n", 4, 16]
    model = draft.model({"x": shape}, {"one": shape, "two": shape})
    assert [one.name for one in linears.find(model)] == ["attn/one", "attn/two"]


def test_products_of_activations_are_no_layers() -> None:
    nodes = {one.node for one in linears.find(block())}
    assert not {"node_scores", "node_mixed"} & nodes
    assert "head/hash" not in nodes


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": [2, 2]},
        {"pads": [1, 1, 1, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": b"SAME_UPPER"},
    ],
)
def test_a_convolution_that_cuts_no_patches(changes: dict[str, Any]) -> None:
    draft = Draft()
    kernel = draft.constant("kernel", np.ones((16, 3, PATCH, PATCH)))
    marks: dict[str, Any] = {"strides": [PATCH, PATCH], "pads": [0, 0, 0, 0]}
    draft.op("Conv", ["x", kernel], "y", **marks)
    model = draft.model({"x": ["n", 3, SIDE, SIDE]}, {"y": ["n", 16, "a", "b"]})
    assert len(linears.find(model)) == 1
    node = maker(model, "y")
    kept = {mark.name: mark for mark in node.attribute}
    kept |= {name: helper.make_attribute(name, value) for name, value in changes.items()}
    del node.attribute[:]
    node.attribute.extend(kept.values())
    assert linears.find(model) == []


def test_a_thin_convolution() -> None:
    draft = Draft()
    kernel = draft.constant("kernel", np.ones((8, 3, PATCH, PATCH)))
    draft.op("Conv", ["x", kernel], "y", strides=[PATCH, PATCH])
    model = draft.model({"x": ["n", 3, SIDE, SIDE]}, {"y": ["n", 8, 4, 4]})
    assert linears.find(model) == []
