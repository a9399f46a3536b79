"""What OpenVINO made of a model, read from the runtime model of what it compiled."""

from __future__ import annotations

from typing import Any

from fgdeploy.engines.engine_layers import Layers

# Runtime nodes that multiply by weights; products of two activations are "MatMul".
_PRODUCTS = ("FullyConnected", "Convolution")
_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "int8"}


def read(compiled: Any, model: Any) -> Layers:
    """Return the layers of an openvino.CompiledModel made of `model`.

    A softmax and the product that reads it in one node are fused attention. A GELU is fused where
    its Erf is gone: an op that runs by itself is named.
    """
    products: dict[str, int] = {}
    norms, parts = 0, []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind = facts["layerType"].astype(str)
        parts.append(frozenset(facts["originalLayersNames"].astype(str).split(",")))
        norms += kind == "MVN"
        if kind.startswith(_PRODUCTS):
            precision = facts["runtimePrecision"].astype(str)
            type_ = _TYPES.get(precision.lower(), precision)
            products[type_] = products.get(type_, 0) + 1
    named = frozenset().union(*parts)
    attention = [pair for pair in _softmax_products(model) if any(pair <= part for part in parts)]
    open_ = [name for name in _named(model, "Erf") if name in named]
    gelus = len(_named(model, "Erf")) - len(open_)
    return Layers(products, {"attention": len(attention), "layer_norm": norms, "gelu": gelus})


def _named(model: Any, kind: str) -> list[str]:
    return [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == kind]


def _softmax_products(model: Any) -> list[frozenset[str]]:
    """Return the names of each softmax and of the product that reads it."""
    return [
        frozenset({op.get_friendly_name(), reader.get_node().get_friendly_name()})
        for op in model.get_ops()
        if op.get_type_name() == "Softmax"
        for reader in op.output(0).get_target_inputs()
        if reader.get_node().get_type_name() == "MatMul"
    ]
