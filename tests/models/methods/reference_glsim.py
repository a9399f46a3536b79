"""GLSim in numpy and float64, from the published maths and the facts of the authors' code.

docs/methods.md, section 2 with 10. Weights by timm's names; beside them `reducer`, the block
`aggregator` or blocks `aggregator.blocks.j`, `aggregator_norm`, `head`, and path B's
`cls_token_crops`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.models.methods.reference_looks import (
    Array,
    Looked,
    Weights,
    cut_and_resized,
    first_best,
    layer_norm,
    linear,
    run_block,
    vit_tokens,
)

HEAD_WIDTH = 64  # of path A's aggregator, whatever the encoder's is
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Glanced:
    """embedding [D']; logits [C], None without a class head; similarity [rows, columns].

    box: top, left, bottom, right in pixels, and crop [3, S, S]; None where there is no second look.
    chosen: the tokens, best first, as positions among the patches.
    """

    embedding: Array
    logits: Array | None
    similarity: Array
    chosen: list[int]
    box: Box | None
    crop: Array | None


def similarity(tokens: Array, prefix: int, metric: str) -> Array:
    """Return how alike each patch is to CLS, [N]: cos, or a distance for l1 and l2."""
    cls, patches = tokens[0], tokens[prefix:]
    if metric == "cos":
        unit = [row / max(float(np.sqrt(row @ row)), 1e-8) for row in (cls, *patches)]
        return np.array([float(unit[0] @ row) for row in unit[1:]])
    apart = np.abs(patches - cls)
    found: Array = (apart if metric == "l1" else apart**2).mean(axis=1)
    return found


def most_similar(values: Array, top: int, metric: str) -> list[int]:
    """Return the `top` patches most like CLS: the largest cosine, the smallest distance."""
    return first_best(values if metric == "cos" else -values, top)


def box_around(chosen: list[int], columns: int, patch: int, size: int, inclusive: bool) -> Box:
    """Return top, left, bottom, right in pixels of the chosen patches of a grid.

    As released, the last row and column are outside unless nothing would be left; inclusive: they
    are inside.
    """
    sides = []
    for places in ([i // columns for i in chosen], [i % columns for i in chosen]):
        low, high = min(places) * patch, max(places) * patch
        end = high + patch if inclusive else min(max(high, low + patch), size)
        sides.append((low, end))
    (top, bottom), (left, right) = sides
    return top, left, bottom, right


def glsim(
    state: Weights,
    pixels: Array,
    heads: int,
    top: int,
    metric: str = "cos",
    inclusive: bool = False,
    eps: float = 1e-12,
    aggregator_eps: float | None = None,
    own_cls: bool = False,
    select_only: bool = False,
    aggregator_heads: int | None = None,
    apart: int | None = None,
) -> Glanced:
    """Look at normalised pixels [3, S, S], and again at the crop around what is like CLS.

    eps: of every LayerNorm but `aggregator_norm`, whose is aggregator_eps (path A: 1e-12 for both;
    path B: 1e-6 and 1e-5). Path B's newer form has no `norm` among the weights: similarity and
    aggregator then get tokens that no norm has seen. own_cls: the second look has
    `cls_token_crops` for CLS (path B). select_only: CLS and the chosen tokens are aggregated, and
    there is no second look (`select_top_k`). aggregator_heads: None for path A's; path B's are the
    encoder's. apart: pixels from patch to patch in the box, None for the patch's side (path A: S
    over the grid's side, which is more where the patches do not fill the image).
    """
    first = vit_tokens(state, pixels, heads, eps)
    values = similarity(first.normed, first.prefix, metric)
    chosen = most_similar(values, top, metric)
    box, crop = None, None
    if select_only:
        rows = [first.normed[0], *(first.normed[first.prefix + i] for i in chosen)]
    else:
        step = state["patch_embed.proj.weight"].shape[-1] if apart is None else apart
        box = box_around(chosen, first.grid[1], step, pixels.shape[1], inclusive)
        crop = cut_and_resized(pixels, box, pixels.shape[1])
        rows = [first.normed[0], _second(state, crop, heads, eps, own_cls).normed[0]]
    embedding = aggregated(state, np.stack(rows), eps, aggregator_eps, aggregator_heads)
    logits = linear(embedding, state, "head") if "head.weight" in state else None
    return Glanced(embedding, logits, values.reshape(first.grid), chosen, box, crop)


def _second(state: Weights, crop: Array, heads: int, eps: float, own_cls: bool) -> Looked:
    return vit_tokens(state, crop, heads, eps, cls="cls_token_crops" if own_cls else "cls_token")


def aggregated(
    state: Weights,
    rows: Array,
    eps: float,
    norm_eps: float | None = None,
    heads: int | None = None,
) -> Array:
    """Return the first of the rows [R, D] behind reducer, aggregating blocks and their norm.

    What the weights lack is left out.
    """
    if "reducer.weight" in state:
        rows = linear(rows, state, "reducer")
    names = [name for name in state if name.startswith("aggregator.")]
    several = sorted({".".join(name.split(".")[:3]) for name in names if ".blocks." in name})
    for start in several or ["aggregator"] * bool(names):
        p = {n[len(start) + 1 :]: value for n, value in state.items() if n.startswith(f"{start}.")}
        rows, _ = run_block(p, rows, rows.shape[1] // HEAD_WIDTH if heads is None else heads, eps)
    first: Array = rows[0]
    if "aggregator_norm.weight" not in state:
        return first
    return layer_norm(first, state, "aggregator_norm", eps if norm_eps is None else norm_eps)
