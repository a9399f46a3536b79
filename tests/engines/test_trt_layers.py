"""Layers of TensorRT: read from the builder's log, from a network, and held against the graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BuildSettings, build, ort_layers, trt_build, trt_layers
from fgdeploy.engines.engine_layers import Layers
from tests.checks import refused

AHEAD = BuildSettings(compute_capabilities=("8.9",))


def line(name: str, kind: str, *constants: tuple[str, str]) -> str:
    """Return a layer as TensorRT-RTX 1.7 lists it."""
    form = "{{ Name: c, Dimensions: [{}], Datatype: {}, Format: (Linear) Row major }}"
    given = form.format("-1,64", "Half")
    held = ", ".join(form.format(sides, type_) for sides, type_ in constants)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {given}], Constants: [ {held}], "
        f"Outputs: [ {given}], TacticName: , StreamId: 0, Metadata: [ONNX Layer: {name}]"
    )


def test_a_list_of_layers() -> None:
    whole = [("64,192", "Int8"), ("192", "Float"), ("", "Float")]
    gelu = "__myl_FcCastAddCastMulCastErfCastCastAddCastMulMul_myl0_9"
    lines = [
        "Name: __mye1_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: []",
        line("blocks.0.attn.qkv_myl0_5", "gemm", *whole),
        line("embed.conv_myl0_3", "correlation", ("64,3,16,16", "Half")),
        line(gelu, "runtime_fusion", ("192", "Float"), ("64,192", "Half")),
        line("__myl_FcCast_myl0_90", "runtime_fusion", ("12,2", "Float")),
        line("steps.2.select/node_matmul_4_myl0_18", "gemm", ("", "Float"), ("1,1", "Float")),
        line("_gemm_mha_v2_myl0_20", "kgen"),
        line("__myl_Add_myl0_21", "kgen", ("16,64", "Float")),
        line("strange", "gemm", ("16,64", "Complex")),
    ]
    said = "\n".join(["Layers:", *lines])
    products, fused = trt_layers._engine_layers(said)
    assert products == {"int8": 1, "float16": 2, "float32": 1}
    assert fused == {"attention": 1, "gelu": 1}
    assert trt_layers._engine_layers("Layers: a new form") == ({}, {})


def test_an_engine_and_its_network(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    bundle = open_bundle(own_bundle)
    graph = ort_layers.read(bundle.graph())
    entry = build(bundle, "tensorrt-rtx", "fp32", AHEAD).record
    assert entry is not None and entry.layers is not None
    assert entry.layers["products"] == dict(graph.products)
    monkeypatch.setattr(trt_build, "SAYS_LAYERS", "what no version says")
    entry = build(bundle, "tensorrt-rtx", "fp32", AHEAD).record
    assert entry is not None and entry.layers is not None
    assert entry.layers["products"] == dict(graph.products)


def test_more_in_float32_than_the_graph_asks_for() -> None:
    graph, fell = Layers({"float16": 46, "float32": 2}), Layers({"float16": 45, "float32": 3})
    graph.check_floats(graph, "tensorrt", "fp16")
    Layers({"int8": 46}).check_floats(graph, "tensorrt", "int8")  # fewer is a merge of two
    fell.check_floats(graph, "tensorrt", "fp32")
    with refused(EngineError, "tensorrt computes 3 products in float32 where the fp16 graph has 2"):
        fell.check_floats(graph, "tensorrt", "fp16")
