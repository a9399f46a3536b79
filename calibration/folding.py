"""Where the shift and scale of an activation can hide at no cost, and hiding them there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.linears import Linear
from fgdeploy.calibration.paths import Node, Paths

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """The place: `norm` is the LayerNormalization behind the activation, or `values` the layer
    whose last third makes the values of the attention behind it. Both None: two ops do it."""

    norm: Node | None = None
    values: Linear | None = None


def place(x: str, readers: Sequence[Linear], layers: Sequence[Linear], paths: Paths) -> Fold:
    """Return where the balance of activation `x` can fold.

    Into a norm if the layers `readers` are all that read it. Into the values of attention if these
    go nowhere else (a rule that scores tokens by their values needs them as they were): softmax
    rows sum to one, so a shift passes through attention unchanged.
    """
    nodes = {linear.node for linear in readers}
    alone = x not in paths.outputs and all(user.name in nodes for user in paths.users[x])
    behind = paths.producers.get(x)
    if behind is not None and behind.op_type == "LayerNormalization":
        known = len(behind.input) == 3 and set(behind.input[1:]) <= paths.constants
        return Fold(norm=behind) if alone and known else Fold()
    product = paths.follow_back(x, ("Reshape", "Transpose", "MatMul"))
    if product is None or not alone:
        return Fold()
    soft = paths.producers.get(product.input[0])
    split = paths.follow_back(product.input[1], ("Transpose", "Reshape", "Split"))
    if soft is None or not _rows_sum_to_one(soft) or split is None:
        return Fold()
    chain = [*_between(x, product, paths), *_between(product.input[1], split, paths)]
    last_part = paths.producers[chain[-1]].output[-1] == chain[-1]
    shared = paths.outputs & {*chain, split.input[0]}
    if shared or any(len(paths.users[name]) != 1 for name in chain) or not last_part:
        return Fold()
    makers = {linear.bias or linear.node: linear for linear in layers}
    source = paths.producers.get(split.input[0])
    whole = source is not None and len(paths.users[split.input[0]]) == 1
    return Fold(values=makers.get(source.name) if source is not None and whole else None)


def _rows_sum_to_one(node: Node) -> bool:
    axes = [mark.i for mark in node.attribute if mark.name == "axis"]
    return node.op_type == "Softmax" and axes in ([], [-1], [3])  # [B, heads, T, T]


def _between(tensor: str, stop: Node, paths: Paths) -> list[str]:
    """Return the tensors from `tensor` back to the one that `stop` makes."""
    names = [tensor]
    while paths.producers[names[-1]].name != stop.name:
        names.append(paths.producers[names[-1]].input[0])
    return names


class Weights:
    """The float weights and biases of layers and norms while balances fold into them."""

    def __init__(self, layers: Sequence[Linear], arrays: Mapping[str, Doubles], paths: Paths):
        nodes = {node.name: node for node in paths.nodes}
        self.weight = {layer.name: arrays[layer.weight].copy() for layer in layers}
        self.bias: dict[str, Doubles] = {}
        for layer in layers:
            # Of a convolution the third input, of a sum either of its two.
            places = slice(2, 3) if layer.bias == layer.node else slice(0, 2)
            inputs = nodes[layer.bias].input[places] if layer.bias is not None else []
            held = [arrays[name] for name in inputs if name in arrays]
            self.bias[layer.name] = held[0].copy() if held else np.zeros(layer.fan_out)
        self.norms: dict[str, tuple[Doubles, Doubles]] = {}
        self._arrays = arrays

    def fold(self, balance: Balance, readers: Sequence[Linear], fold: Fold) -> None:
        """Move a balance into what lies before (`fold`) and what lies behind (`readers`)."""
        for linear in readers:
            self.bias[linear.name] += balance.shift @ self.weight[linear.name]
            self.weight[linear.name] *= balance.scale[:, None]
        if fold.norm is not None:
            gamma, beta = (self._arrays[name] for name in fold.norm.input[1:3])
            self.norms[fold.norm.name] = (
                gamma / balance.scale,
                (beta - balance.shift) / balance.scale,
            )
        if fold.values is not None:
            last = slice(-len(balance.scale), None)
            self.weight[fold.values.name][:, last] /= balance.scale
            bias = self.bias[fold.values.name]
            bias[last] = (bias[last] - balance.shift) / balance.scale
