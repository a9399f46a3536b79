"""What ONNX Runtime made of a graph, read from the optimised file that it wrote."""

from __future__ import annotations

from pathlib import Path

from fgdeploy.bundle import onnx_scan
from fgdeploy.engines.engine_layers import Layers

# Ops that multiply by weights, which may stand on either side.
_PRODUCTS = {"Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
# Their quantised kin, whatever the graph around them is.
_INT8 = {
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"),
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"),
}
_FUSED = {
    **dict.fromkeys(("Attention", "MultiHeadAttention", "PackedMultiHeadAttention"), "attention"),
    **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization"), "layer_norm"),
    **dict.fromkeys(("Gelu", "BiasGelu", "FastGelu", "QuickGelu"), "gelu"),
}
_ONNX_TYPES = {1: "float32", 10: "float16", 16: "bfloat16"}


def read(path: Path) -> Layers:
    """Return the layers of an ONNX file. A product of a matrix that is computed counts as none."""
    nodes, weights = onnx_scan.contents(path)
    products: dict[str, int] = {}
    fused: dict[str, int] = {}
    for node in nodes:
        if node.op in _FUSED:
            fused[_FUSED[node.op]] = fused.get(_FUSED[node.op], 0) + 1
        kind = _type(node, weights)
        if kind is not None:
            products[kind] = products.get(kind, 0) + 1
    return Layers(products, fused)


def _type(node: onnx_scan.Node, weights: dict[str, int]) -> str | None:
    if node.op in _INT8:
        return "int8"
    if node.op not in _PRODUCTS:
        return None
    kinds = [weights[name] for name in node.inputs[:2] if name in weights]
    return _ONNX_TYPES.get(kinds[0]) if kinds else None
