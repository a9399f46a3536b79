"""A ViT with token reduction in plain numpy and float64: one image, from the published maths alone.

A reduction is a `Reduce` whose methods change a `State` in place at one of three places in a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]


@dataclass
class State:
    """What one image is within a block. T rows; each value beside x is here for reductions.

    x: [T, D]. size: [T], patches that a row stands for. policy: [T], 1 where DynamicViT counts it.
    suffix: rows at the end that are no patches, CLR and cached ones; registers: rows behind CLS.
    aside: rows that come back before the last block. weights: all of the network's, by name.
    k, v: [H, T, d] and attention [H, T, T] of the block, out [T, D] its output before proj.
    """

    x: Array
    size: Array
    policy: Array
    suffix: int
    registers: int = 0
    aside: list[Array] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)
    k: Array = field(default_factory=lambda: np.zeros(0))
    v: Array = field(default_factory=lambda: np.zeros(0))
    attention: Array = field(default_factory=lambda: np.zeros(0))
    out: Array = field(default_factory=lambda: np.zeros(0))

    def take(self, rows: list[int]) -> None:
        """Keep these rows in this order."""
        self.x, self.size, self.policy = self.x[rows], self.size[rows], self.policy[rows]

    def append(self, rows: Array) -> None:
        """Bring rows back from the cache."""
        self.x = np.concatenate([self.x, rows])
        self.size = np.concatenate([self.size, np.ones(len(rows))])
        self.policy = np.concatenate([self.policy, np.zeros(len(rows))])
        self.suffix += len(rows)


class Reduce:
    """A reduction that does nothing."""

    def before(self, s: State) -> None:
        """Change x before the block."""

    def inside(self, s: State) -> None:
        """Change x and out between attention and proj."""

    def between(self, s: State) -> None:
        """Change x between attention and MLP."""

    def after(self, s: State) -> None:
        """Change x behind the block."""


@dataclass(frozen=True)
class Cache:
    """CLCA's cache: what a block keeps, and whether it also comes back behind the last but one."""

    gap: bool = True
    clr: int = 1
    pool_cls: bool = False
    pool_clr: bool = False
    at_last: bool = True


@dataclass(frozen=True)
class Run:
    """rows: CLS after each block; arriving: rows that entered each block; embedding: normed CLS."""

    rows: list[Array]
    arriving: list[int]
    embedding: Array


def forward(
    state: Weights,
    image: Array,
    heads: int,
    patch: int,
    reducing: Mapping[int, Reduce],
    cache: Cache | None = None,
    eps: float = 1e-6,
) -> Run:
    """Run an image [3, S, S] through the blocks; `reducing` numbers them from 1."""
    s = _embedded(state, image, patch, eps)
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    clr = len(state["clr"][0]) if "clr" in state else 0
    end = len(s.x) - (0 if cache is not None and cache.pool_clr else clr)
    recovery = sorted({*reducing, *([depth - 1] if cache and cache.at_last else [])})
    kept: list[Array] = []
    rows, arriving = [], []
    for number in range(1, depth + 1):
        arriving.append(len(s.x))
        p = {
            k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"blocks.{number - 1}.")
        }
        one = reducing.get(number, Reduce())
        if number == depth:
            s.x = np.concatenate([s.x, *s.aside])
            s.size = np.ones(len(s.x)) if s.aside else s.size
        one.before(s)
        _block(s, p, heads, one, eps)
        rows.append(s.x[0])
        if cache is None:
            continue
        if number in recovery:
            end = len(s.x)
            s.append(np.concatenate(kept))
            kept = []
        if recovery and number < recovery[-1]:
            if cache.gap:
                start = 0 if cache.pool_cls or end == 1 else 1  # CLS alone is its own mean
                kept.append(s.x[start:end].mean(0, keepdims=True))
            if cache.clr:
                kept.append(s.x[len(s.x) - cache.clr :])
    embedding = rows[-1]
    if "norm.weight" in state:
        embedding = layer_norm(embedding, state["norm.weight"], state["norm.bias"], eps)
    return Run(rows, arriving, embedding)


def aggregated(state: Weights, rows: list[Array]) -> Array:
    """Return the CLA feature of CLS rows: BatchNorm, a kernel over blocks, BatchNorm, GELU."""
    p = {k.removeprefix("aggregate."): v for k, v in state.items() if k.startswith("aggregate.")}
    x = np.stack(rows, axis=1)  # [D, blocks]
    x = _batch_norm(x.T, p, "norm_in.").T
    conv = p["conv.weight"][:, 0]  # [kernels D, blocks]; output o reads channel o // kernels
    kernels = len(conv) // len(x)
    u = np.array([(conv[o] * x[o // kernels]).sum() for o in range(len(conv))]) + p["conv.bias"]
    return gelu(_batch_norm(u, p, "norm_out."))


def _batch_norm(x: Array, p: Weights, name: str) -> Array:
    scale = p[name + "weight"] / np.sqrt(p[name + "running_var"] + 1e-5)
    found: Array = (x - p[name + "running_mean"]) * scale + p[name + "bias"]
    return found


def _embedded(state: Weights, image: Array, patch: int, eps: float) -> State:
    weight, side = state["patch_embed.proj.weight"], image.shape[1] // patch
    bias = state.get("patch_embed.proj.bias", np.zeros(len(weight)))
    cut = image.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
    x = cut.reshape(side * side, -1) @ weight.reshape(len(weight), -1).T + bias
    registers = state["reg_token"][0] if "reg_token" in state else np.zeros((0, x.shape[1]))
    position = state["pos_embed"][0]
    if len(position) == len(x):
        x = np.concatenate([state["cls_token"][0], registers, x + position])
    else:
        x = np.concatenate([state["cls_token"][0], registers, x]) + position
    last = state["clr"][0] if "clr" in state else np.zeros((0, x.shape[1]))
    x = np.concatenate([x, last])
    if "norm_pre.weight" in state:
        x = layer_norm(x, state["norm_pre.weight"], state["norm_pre.bias"], eps)
    ones = np.ones(len(x))
    return State(x, ones, ones, len(last), len(registers), weights=state)


def _block(s: State, p: Weights, heads: int, one: Reduce, eps: float) -> None:
    y = layer_norm(s.x, p["norm1.weight"], p["norm1.bias"], eps)
    rows, width = y.shape
    qkv = linear(y, p, "attn.qkv").reshape(rows, 3, heads, width // heads)
    q, s.k, s.v = qkv.transpose(1, 2, 0, 3)  # each [H, T, d]
    products = q @ s.k.transpose(0, 2, 1) / math.sqrt(width // heads)
    s.attention = softmax(products + np.log(s.size))
    s.out = (s.attention @ s.v).transpose(1, 0, 2).reshape(rows, width)
    one.inside(s)
    s.x = s.x + p.get("ls1.gamma", 1.0) * linear(s.out, p, "attn.proj")
    one.between(s)
    y = gelu(linear(layer_norm(s.x, p["norm2.weight"], p["norm2.bias"], eps), p, "mlp.fc1"))
    s.x = s.x + p.get("ls2.gamma", 1.0) * linear(y, p, "mlp.fc2")
    one.after(s)


def linear(x: Array, p: Weights, name: str) -> Array:
    """Return x W^T + b."""
    found: Array = x @ p[name + ".weight"].T + p.get(name + ".bias", 0.0)
    return found


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Return (x - mean) / sqrt(variance + eps), scaled and shifted."""
    mean = x.mean(-1, keepdims=True)
    found: Array = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    return found * weight + bias


def gelu(x: Array) -> Array:
    """Return x times the normal distribution's cdf at x."""
    found: Array = x * 0.5 * (1 + torch.erf(torch.from_numpy(x / math.sqrt(2))).numpy())
    return found


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Array = e / e.sum(-1, keepdims=True)
    return found


class TopK(Reduce):
    """CLS and the ceil(rate (T - 1)) rows that it attends to most, in the mean of the heads."""

    def __init__(self, rate: float, fused: bool = False) -> None:
        self.rate, self.fused = rate, fused

    def between(self, s: State) -> None:
        """Take the rows; EViT adds the sum of the others, weighted by their attention."""
        scores = s.attention[:, 0, 1:].mean(0)
        keep = math.ceil(self.rate * (len(s.x) - 1))
        if keep >= len(scores):  # nothing is left to fuse
            return
        order = np.argsort(-scores, kind="stable") + 1
        kept, others = sorted(order[:keep]), order[keep:]
        fused = (scores[others - 1, None] * s.x[others]).sum(0, keepdims=True)
        s.take([0, *kept])
        s.suffix = 0
        if self.fused:
            s.append(fused)
            s.suffix = 0


class ToMe(Reduce):
    """Of the even rows, but CLS, the `count` most alike to an odd row become one with it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def between(self, s: State) -> None:
        """Merge rows by their keys, each weighted by the patches that it stands for."""
        key = s.k.mean(0)
        key = key / np.sqrt((key**2).sum(1, keepdims=True))
        even, odd = range(0, len(key), 2), range(1, len(key), 2)
        partner, likeness = {}, {}
        for i in even[1:]:
            products = [float(key[i] @ key[j]) for j in odd]
            likeness[i] = max(products)
            partner[i] = odd[products.index(likeness[i])]
        count = min(self.count, (len(key) - 1) // 2)
        if count <= 0:
            return
        merged = sorted(likeness, key=lambda i: (-likeness[i], i))[:count]
        x, size = s.x * s.size[:, None], s.size.copy()
        for i in merged:
            x[partner[i]] += x[i]
            size[partner[i]] += size[i]
        order = [*(i for i in even if i not in merged), *odd]
        s.x = x / size[:, None]
        s.size = size
        s.take(order)
        s.suffix = 0


class MaMe(Reduce):
    """Of the patches `keep` are targets; each other one is shared out among those like it."""

    def __init__(self, keep: int, threshold: float, first: bool) -> None:
        self.keep, self.threshold, self.first = keep, threshold, first

    def between(self, s: State) -> None:
        """Merge sources into targets; all rows that are no patches stay."""
        begin, end = 1 + s.registers, len(s.x) - s.suffix
        at = list(range(begin, end))
        side = math.isqrt(len(at))
        if self.first:
            grid = np.array(at).reshape(side, side)
            grid[1::2] = grid[1::2, ::-1].copy()
            at = list(grid.reshape(-1))
        targets = [at[i * len(at) // self.keep] for i in range(self.keep)]
        key = s.k.mean(0)
        key = key / np.sqrt((key**2).sum(1, keepdims=True))
        x, size = s.x * s.size[:, None], s.size.copy()
        for source in set(at) - set(targets):
            like = np.array([float(key[t] @ key[source]) for t in targets])
            parts = np.maximum(like - self.threshold, 0)
            if parts.any():
                parts = parts / parts.sum()
                parts = np.where(parts >= parts[parts > 0].mean() - 1e-6, parts, 0)
            else:
                parts = (like == like.max()).astype(float)
            for target, part in zip(targets, parts / parts.sum(), strict=True):
                x[target] += part * s.size[source] * s.x[source]
                size[target] += part * s.size[source]
        s.x, s.size = x / size[:, None], size
        s.take([*range(begin), *targets, *range(end, len(s.x))])
