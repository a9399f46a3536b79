"""Reductions with weights of their own in plain numpy: they read them by the names they have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.models.reduce.reference import (
    Array,
    Reduce,
    State,
    Weights,
    gelu,
    layer_norm,
    linear,
    softmax,
)


class _Learned(Reduce):
    """stage: from 1; its weights are called `stages.S.part.…` with S from 0."""

    part = ""

    def __init__(self, stage: int) -> None:
        self._start = f"stages.{stage - 1}.{self.part}."

    def weights(self, s: State) -> Weights:
        """Return the stage's own weights."""
        start = self._start
        return {k.removeprefix(start): v for k, v in s.weights.items() if k.startswith(start)}


class SiT(_Learned):
    """count: rows that are left of all behind CLS and registers."""

    part = "cluster"

    def __init__(self, stage: int, count: int) -> None:
        super().__init__(stage)
        self.count = count

    def before(self, s: State) -> None:
        """Put what is made of all rows behind the prefix in their place."""
        kept = 1 + s.registers
        rows = self.mixed(s.x[kept:], self.weights(s)) if self.count else s.x[:0]
        assert len(rows) == self.count
        s.x = np.concatenate([s.x[:kept], rows])
        s.size = s.policy = np.ones(len(s.x))
        s.suffix = 0

    def mixed(self, x: Array, p: Weights) -> Array:
        """Mix the rows by what a small network says of each."""
        y = layer_norm(x, p["weight.0.weight"], p["weight.0.bias"], 1e-5)
        logits = linear(gelu(linear(y, p, "weight.1")), p, "weight.3") * p["scale"].item()
        found: Array = softmax(logits.T) @ x
        return found


class PatchMerger(SiT):
    """count: rows that are left of all behind CLS and registers."""

    def mixed(self, x: Array, p: Weights) -> Array:
        """Gather by queries from normalised rows."""
        y = layer_norm(x, p["norm.weight"], p["norm.bias"], 1e-5)
        found: Array = softmax(p["queries"] @ y.T) @ y
        return found


class DynamicViT(_Learned):
    """CLS and the best rows. count: of T rows, how many stay behind CLS."""

    part = "predictor"

    def __init__(self, stage: int, count: Callable[[int], int]) -> None:
        super().__init__(stage)
        self.count = count

    def before(self, s: State) -> None:
        """Take the rows that are most probably kept."""
        keep = self.count(len(s.x))
        scores = predicted(s.x[1:], s.policy[1:], self.weights(s))[:, 0] if keep else np.zeros(0)
        best = np.argsort(-scores, kind="stable")[:keep] + 1
        s.take([0, *(int(row) for row in best)])
        s.suffix = 0


def predicted(x: Array, policy: Array, p: Weights) -> Array:
    """Return DynamicViT's log probabilities [T, 2] to keep and to drop each row of x [T, D]."""
    y = layer_norm(x, p["in_conv.0.weight"], p["in_conv.0.bias"], 1e-5)
    y = gelu(linear(y, p, "in_conv.1"))
    half = y.shape[1] // 2
    mean = (y[:, half:] * policy[:, None]).sum(0) / max(policy.sum(), 1) + 1e-6
    y = np.concatenate([y[:, :half], np.tile(mean, (len(y), 1))], axis=1)
    for layer in ("out_conv.0", "out_conv.2"):
        y = gelu(linear(y, p, layer))
    found: Array = np.log(softmax(linear(y, p, "out_conv.4")))
    return found


class Cropr(_Learned):
    """CLS and the `count` rows that a query likes most; the others come back at last if `fuse`."""

    part = "scorer"

    def __init__(self, stage: int, count: int, fuse: bool = True) -> None:
        super().__init__(stage)
        self.count, self.fuse = count, fuse

    def after(self, s: State) -> None:
        """Take the rows, and keep the others aside."""
        scores = s.x[1:] @ self.weights(s)["queries"].sum(0)
        order = np.argsort(-scores, kind="stable") + 1
        if self.fuse:
            s.aside.append(s.x[order[self.count :]])
        s.take([0, *sorted(int(row) for row in order[: self.count])])
        s.suffix = 0
