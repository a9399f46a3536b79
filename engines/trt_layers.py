"""What TensorRT made of a graph: read from its network, and from the layers that its builder tells.

The network is strongly typed, so it says what must be computed in which type. What was compiled is
in the builder's log, in one message, where profiling is detailed; no GPU is needed for it.
"""

from __future__ import annotations

import re
from typing import Any

from fgdeploy.engines.engine_layers import Layers

SAYS_LAYERS = "LayerType: "  # the message of the log that lists the engine's layers

_TYPES = {
    **{"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8"},
    **{"FP8": "float8", "E4M3": "float8", "FP8E4M3": "float8", "BFLOAT16": "bfloat16"},
}
# What hands weights on to a product.
_PASSES = ("SHUFFLE", "IDENTITY", "CAST", "QUANTIZE", "DEQUANTIZE", "SQUEEZE", "UNSQUEEZE")
_LAYER = re.compile(r"Name: (.*?), LayerType: (\w+), Inputs: (.*?), Constants: (.*?), Outputs: ")
_CONSTANT = re.compile(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")
_PRODUCT = re.compile(r"gemm|correlation|conv|__myl_Fc", re.IGNORECASE)
_ATTENTION = re.compile(r"mha", re.IGNORECASE)
_GELU = re.compile(r"Erf\w*Add\w*Mul")


def read(trt: Any, network: Any, said: str) -> Layers:
    """Return the layers of an engine.

    said: the builder's list of layers, empty where it gave none; products and attention are read
    from it, or else, without attention, from the network. Normalisations are the network's, whole.
    """
    of_network = _network_layers(trt, network)
    products, fused = _engine_layers(said)
    return Layers(products or of_network.products, {**of_network.fused, **fused})


def _engine_layers(said: str) -> tuple[dict[str, int], dict[str, int]]:
    products: dict[str, int] = {}
    fused: dict[str, int] = {}
    for name, kind, _, constants in _LAYER.findall(said):
        for pattern, found in (("attention", _ATTENTION), ("gelu", _GELU)):
            if found.search(name):
                fused[pattern] = fused.get(pattern, 0) + 1
        type_ = _matrix(constants) if _PRODUCT.search(f"{kind} {name}") else None
        if type_ is not None:
            products[type_] = products.get(type_, 0) + 1
    return products, fused


def _matrix(constants: str) -> str | None:
    """Return the type of the matrix among a layer's constants, None where it multiplies by none."""
    for sides, type_ in _CONSTANT.findall(constants):
        if sum(side not in ("", "1") for side in sides.split(",")) > 1:
            return _TYPES.get(type_.upper())
    return None


def _network_layers(trt: Any, network: Any) -> Layers:
    kinds = trt.LayerType
    products: dict[str, int] = {}
    norms = 0
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(place).name: layer
        for layer in layers
        for place in range(layer.num_outputs)
    }
    for layer in layers:
        norms += layer.type == kinds.NORMALIZATION
        if layer.type in (kinds.MATRIX_MULTIPLY, kinds.CONVOLUTION):
            type_ = _network_type(layer, makers, layer.type == kinds.CONVOLUTION)
            if type_ is not None:
                products[type_] = products.get(type_, 0) + 1
    return Layers(products, {"layer_norm": norms} if norms else {})


def _network_type(layer: Any, makers: dict[str, Any], convolution: bool) -> str | None:
    """Return the type of a product with weights, None for one of two activations."""
    given = _TYPES.get(layer.get_input(0).dtype.name)
    weight = layer.get_input(1) if layer.num_inputs > 1 else None
    if weight is None:
        return given if convolution else None
    maker = makers.get(weight.name)
    while maker is not None and maker.type.name in _PASSES:
        source = maker.get_input(0)
        if maker.type.name == "DEQUANTIZE":
            given = _TYPES.get(source.dtype.name)
        maker = makers.get(source.name)
    return given if maker is not None and maker.type.name == "CONSTANT" else None
