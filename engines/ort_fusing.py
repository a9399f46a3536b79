"""A bundle's graph with the ops that ONNX Runtime has fused kernels for.

Its own fusers do not know the patterns that PyTorch's exporter writes. Exact but for the order of
sums: MultiHeadAttention for the split into heads, two products and their softmax;
SkipLayerNormalization for bias, residual sum and LayerNormalization; BiasGelu for bias and GELU.
Whatever looks otherwise stays as it is. This needs the onnx package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from fgdeploy.engines.engine_layers import PATTERNS
from fgdeploy.engines.onnx_wiring import Node, Wiring, attribute, own_op

_HEADS_FIRST = [0, 2, 1, 3]  # [B, N, H, D] to [B, H, N, D], and back
_KEYS_LAST = [0, 2, 3, 1]  # [B, N, H, D] to [B, H, D, N]


def fuse(model: Any, patterns: Sequence[str] = PATTERNS) -> dict[str, int]:
    """Rewrite a graph (an onnx.ModelProto) in place; return how many of each pattern became one op.

    patterns: which to look for, of `PATTERNS`. Attention whose probabilities are read by others
    than its product with the values, or that adds something to its scores, is left.
    """
    wiring = Wiring(model)
    counts = {}
    for pattern in patterns:
        kind, rule = _RULES[pattern]
        counts[pattern] = sum(rule(wiring, node) for node in wiring.nodes if node.op_type == kind)
    wiring.finish()
    return counts


def _attention(wiring: Wiring, softmax: Node) -> bool:
    """Fuse the split into heads, the scaled product, Softmax, the product with the values."""
    scores = wiring.maker(softmax.input[0], "MatMul")
    product = wiring.only_reader(softmax.output[0], "MatMul")
    if scores is None or product is None or attribute(softmax, "axis", -1) not in (-1, 3):
        return False
    query, query_scale = _scaled(wiring, scores.input[0])
    key, key_scale = _scaled(wiring, scores.input[1])
    split = [
        _heads(wiring, query, _HEADS_FIRST),
        _heads(wiring, key, _KEYS_LAST),
        _heads(wiring, product.input[1], _HEADS_FIRST),
    ]
    found = [one for one in split if one is not None]
    joined = _joined(wiring, product.output[0])
    if len(found) < 3 or joined is None or len({heads for _, heads in found}) > 1:
        return False
    reads = [tensor for tensor, _ in found]
    expected = [wiring.sides(reads[0])[1], wiring.width(reads[2])]
    if wiring.width(reads[0]) != wiring.width(reads[1]):
        return False
    if wiring.sides(joined.output[0])[1:] != expected:
        return False
    chosen = {"num_heads": found[0][1], "scale": query_scale * key_scale}
    op = own_op("MultiHeadAttention", reads, list(joined.output), joined.name, **chosen)
    wiring.replace(joined, op)
    return True


def _scaled(wiring: Wiring, tensor: str) -> tuple[str, float]:
    """Return a tensor before it was multiplied by a number, and the number."""
    return wiring.with_number(wiring.maker(tensor, "Mul")) or (tensor, 1.0)


def _heads(wiring: Wiring, tensor: str, order: list[int]) -> tuple[str, int] | None:
    """Return the tensor [B, N, H * D] that was split into heads and turned, and H."""
    turned = wiring.maker(tensor, "Transpose")
    if turned is None or attribute(turned, "perm") != order:
        return None
    split = wiring.maker(turned.input[0], "Reshape")
    if split is None:
        return None
    whole, parts = wiring.sides(split.input[0]), wiring.sides(split.output[0])
    if len(whole) != 3 or len(parts) != 4 or whole[1] != parts[1]:
        return None
    heads, size = parts[2:]
    if not isinstance(heads, int) or not isinstance(size, int) or whole[2] != heads * size:
        return None
    return split.input[0], heads


def _joined(wiring: Wiring, tensor: str) -> Node | None:
    """Return the Reshape that joins the heads of [B, H, N, D] to [B, N, H * D]."""
    turned = wiring.only_reader(tensor, "Transpose")
    if turned is None or attribute(turned, "perm") != _HEADS_FIRST:
        return None
    return wiring.only_reader(turned.output[0], "Reshape")


def _gelu(wiring: Wiring, erf: Node) -> bool:
    """Fuse 0.5 * x * (erf(x / sqrt(2)) + 1), with a bias where one was added to x."""
    root = wiring.with_number(wiring.maker(erf.input[0], "Div"))
    plus = wiring.only_reader(erf.output[0], "Add")
    one = wiring.with_number(plus)
    if plus is None or root is None or one is None or one[1] != 1.0:
        return False
    tensor = root[0]
    last = _halved_product(wiring, tensor, plus.output[0])
    if last is None or not math.isclose(root[1], math.sqrt(2), rel_tol=1e-6):
        return False
    width = wiring.width(tensor)
    biased = wiring.biased(tensor, width) if width and len(wiring.readers(tensor)) == 2 else None
    kind, reads = ("BiasGelu", list(biased)) if biased else ("Gelu", [tensor])
    wiring.replace(last, own_op(kind, reads, list(last.output), last.name))
    return True


def _halved_product(wiring: Wiring, one: str, other: str) -> Node | None:
    """Return the node that makes 0.5 * one * other, whichever of both was halved."""
    product = wiring.only_reader(other, "Mul")
    if product is None:
        return None
    if wiring.with_number(product) == (other, 0.5):  # as PyTorch's exporter writes it
        last = wiring.only_reader(product.output[0], "Mul")
        return last if last and set(last.input) == {one, product.output[0]} else None
    halved = next((name for name in product.input if name != other), other)
    return product if wiring.with_number(wiring.maker(halved, "Mul")) == (one, 0.5) else None


def _skip_norm(wiring: Wiring, norm: Node) -> bool:
    """Fuse a sum of two tensors of one shape, a bias in one of them, and its normalisation."""
    total = norm.input[0]
    add, width = wiring.maker(total, "Add"), wiring.width(total)
    if add is None or width is None or len(norm.input) != 3 or len(norm.output) != 1:
        return False
    if any(wiring.sides(name) != wiring.sides(total) for name in add.input):
        return False
    if any(wiring.sides(name) != [width] for name in norm.input[1:]):
        return False
    others = [node for node in wiring.readers(total) if node is not norm]
    normed = any(node.op_type == "LayerNormalization" for node in others)  # each would sum anew
    if normed or attribute(norm, "axis", -1) not in (-1, 2):
        return False
    branch, skip, *bias = _summed(wiring, list(add.input), width)
    reads = [branch, skip, *norm.input[1:], *bias]
    makes = [norm.output[0], *(["", "", total] if others or total in wiring.outputs else [])]
    epsilon = attribute(norm, "epsilon", 1e-5)
    op = own_op("SkipLayerNormalization", reads, makes, norm.name, epsilon=epsilon)
    wiring.replace(add, op, also=[norm])
    return True


def _summed(wiring: Wiring, pair: list[str], width: int) -> list[str]:
    """Return the two tensors of a sum; or one, another before its bias was added, and the bias."""
    for skip, branch in (pair, pair[::-1]):
        biased = wiring.biased(branch, width)
        if biased is not None and len(wiring.readers(branch)) == 1:
            return [biased[0], skip, biased[1]]
    return pair


# pattern -> the op at which to look for it, and what fuses it there
_RULES: dict[str, tuple[str, Callable[[Wiring, Node], bool]]] = {
    "attention": ("Softmax", _attention),
    "gelu": ("Erf", _gelu),
    "layer_norm": ("LayerNormalization", _skip_norm),
}
