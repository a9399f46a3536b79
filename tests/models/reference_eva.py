"""A plain float64 forward pass of EVA, DINOv3, RoPE-ViT and Perception Encoder, with EET's pruning.

Written from the papers' descriptions: one image, one head and one patch after the other. A patch is
known by its row and column; its query and key are complex numbers that are multiplied by exp(i a),
with angles a of these coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Place = tuple[int, int]  # row and column of a patch


@dataclass(frozen=True)
class Angles:
    """How a family turns: its rule, the base of its frequencies, and what its coordinates are.

    reference: side of the grid that coordinates are scaled to; offset: added to them first; across
    first: the column comes before the row; halves: partners lie half a head apart.
    """

    rule: str
    base: float = 10000.0
    reference: int | None = None
    offset: float = 0.0
    across_first: bool = False
    halves: bool = False

    def of(self, place: Place, side: int, size: int, learned: Array | None) -> Array:
        """Return the angles of a head's size / 2 pairs. learned: frequencies [2, size / 2]."""
        row, column = place
        if self.rule == "learned":
            assert learned is not None
            return column * learned[0] + row * learned[1]
        if self.rule == "periods":
            first, second = (2 * (at + 0.5) / side - 1 for at in (row, column))
            speeds = 2 * math.pi / self.base ** (np.arange(size // 4) / (size / 4))
        else:
            scale = 1.0 if self.reference is None else self.reference / side
            first, second = ((at + self.offset) * scale for at in (row, column))
            speeds = self.base ** (-np.arange(size // 4) / (size / 4))
        if self.across_first:
            first, second = second, first
        return np.concatenate([first * speeds, second * speeds])


@dataclass(frozen=True)
class Family:
    """What the forward pass of a kind of model has: heads, patch side, and where its parts lie.

    mlp: `plain`, `packed` (gate and value in one matrix) or `apart`; before, behind: norms before
    the blocks and behind the last; post: norms behind attention and MLP; root: norms divide by the
    root of the mean square alone; bare_cls: positions are of the patches alone.
    """

    heads: int
    patch: int
    angles: Angles | None
    eps: float = 1e-6
    mlp: str = "plain"
    before: bool = False
    behind: bool = True
    post: bool = False
    root: bool = False
    bare_cls: bool = False


def table(family: Family, side: int, size: int) -> tuple[Array, Array]:
    """Return sines and cosines [N + 1, size] in the order of channels, place 0 turning nothing."""
    assert family.angles is not None
    rows = [np.zeros(size // 2)]
    for row in range(side):
        for column in range(side):
            rows.append(family.angles.of((row, column), side, size, None))
    angles = np.stack(rows)
    wide = np.tile(angles, 2) if family.angles.halves else np.repeat(angles, 2, axis=1)
    return np.sin(wide), np.cos(wide)


def _norm(x: Array, p: Mapping[str, Array], name: str, family: Family) -> Array:
    if f"{name}.weight" not in p:
        return x
    if not family.root:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + family.eps)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + family.eps) * p[f"{name}.weight"]


def _linear(x: Array, p: Mapping[str, Array], name: str) -> Array:
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _mlp(x: Array, p: Mapping[str, Array], family: Family) -> Array:
    if family.mlp == "plain":
        inner = _gelu(_linear(x, p, "mlp.fc1"))
    elif family.mlp == "packed":
        gate, value = np.split(_linear(x, p, "mlp.fc1"), 2, axis=-1)
        inner = _silu(gate) * value
    else:
        inner = _silu(_linear(x, p, "mlp.fc1_g")) * _linear(x, p, "mlp.fc1_x")
    return _linear(_norm(inner, p, "mlp.norm", family), p, "mlp.fc2")


def _projected(y: Array, p: Mapping[str, Array]) -> list[Array]:
    if "attn.q_proj.weight" in p:
        return [_linear(y, p, f"attn.{letter}_proj") for letter in "qkv"]
    parts = np.split(_linear(y, p, "attn.qkv"), 3, axis=-1)
    return [part + p.get(f"attn.{name}_bias", 0.0) for name, part in zip("qkv", parts, strict=True)]


def _turned(x: Array, angles: list[Array | None], halves: bool) -> Array:
    """Turn rows x [T, d] of one head by their angles, None for those without a position."""
    found = x.copy()
    for row, angle in enumerate(angles):
        if angle is None:
            continue
        pairs = x[row].reshape(2, -1) if halves else x[row].reshape(-1, 2).T
        number = (pairs[0] + 1j * pairs[1]) * np.exp(1j * angle)
        both = np.stack([number.real, number.imag])
        found[row] = both.reshape(-1) if halves else both.T.reshape(-1)
    return found


def forward(
    state: Mapping[str, Array], image: Array, family: Family, keep: Mapping[int, int]
) -> tuple[Array, list[Place]]:
    """Return the CLS row of one image [3, S, S] behind the last norm, and the patches that stay.

    keep: patches that stay behind a block, by its number from 0; chosen as EET does.
    """
    patch, side = family.patch, image.shape[1] // family.patch
    tiles, places = [], [(row, column) for row in range(side) for column in range(side)]
    for row, column in places:
        tile = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        tiles.append((state["patch_embed.proj.weight"] * tile).sum((1, 2, 3)))
    patches = np.array(tiles) + state.get("patch_embed.proj.bias", 0.0)
    none = np.zeros((0, patches.shape[1]))
    before = np.concatenate([state["cls_token"][0], state.get("reg_token", none[None])[0]])
    if family.bare_cls:
        patches = patches + state["pos_embed"][0]
    x = np.concatenate([before, patches])
    if "pos_embed" in state and not family.bare_cls:
        x = x + state["pos_embed"][0]
    if family.before:
        x = _norm(x, state, "norm_pre", family)
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    for number in range(depth):
        start = f"blocks.{number}."
        p = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        learned = state["rope.freqs"][:, number] if "rope.freqs" in state else None
        x, scores = _block(x, p, family, places, side, learned)
        if number in keep:
            best = np.sort(np.argsort(-scores, kind="stable")[: keep[number]])
            places = [places[one] for one in best]
            x = np.concatenate([x[: len(before)], x[len(before) :][best]])
    return (_norm(x, state, "norm", family) if family.behind else x)[0], places


def _block(
    x: Array,
    p: Mapping[str, Array],
    family: Family,
    places: list[Place],
    side: int,
    learned: Array | None,
) -> tuple[Array, Array]:
    """Return the rows behind a block, and the score of each patch by EET, Eq. 3 to 5."""
    y = x if family.post else _norm(x, p, "norm1", family)
    joint = _projected(y, p)
    size = joint[0].shape[1] // family.heads
    others = len(x) - len(places)
    out, cls_rows = np.zeros_like(joint[2]), []
    for head in range(family.heads):
        columns = slice(head * size, (head + 1) * size)
        q, k, v = (part[:, columns] for part in joint)
        q, k = _norm(q, p, "attn.q_norm", family), _norm(k, p, "attn.k_norm", family)
        if family.angles is not None:
            own = None if learned is None else learned[:, head]
            angles: list[Array | None] = [None] * others
            angles += [family.angles.of(place, side, size, own) for place in places]
            q, k = (_turned(part, angles, family.angles.halves) for part in (q, k))
        products = q @ k.T / math.sqrt(size)
        attention = np.exp(products - products.max(-1, keepdims=True))
        attention = attention / attention.sum(-1, keepdims=True)
        out[:, columns] = attention @ v
        cls_rows.append(attention[0])
    lengths = np.sqrt((out.reshape(len(x), family.heads, size) ** 2).sum(-1)).T
    scores = (np.stack(cls_rows) * lengths / (lengths.sum(0) + 1e-8)).sum(0)[others:]
    added = _linear(_norm(out, p, "attn.norm", family), p, "attn.proj")
    x = x + (_norm(added, p, "norm1", family) if family.post else added * p.get("gamma_1", 1.0))
    fed = _mlp(x if family.post else _norm(x, p, "norm2", family), p, family)
    x = x + (_norm(fed, p, "norm2", family) if family.post else fed * p.get("gamma_2", 1.0))
    return x, scores
