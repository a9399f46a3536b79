"""DVA in numpy and float64: a frozen ViT with in-context adapters (docs/methods.md, section 3).

Weights by timm's names; adapters as `blocks.i.attn.ic_q.down.weight` [r, D] and `.up.weight`
[D, r], likewise `ic_k` and `ic_v`, and perhaps their own `.norm.weight` and `.norm.bias`.
"""

from __future__ import annotations

import numpy as np

from tests.models.methods.reference_looks import Array, Weights, layer_norm, vit_tokens


def adapted(state: Weights, start: str, x: Array, y: Array, eps: float) -> Array | float:
    """Return what the adapter at `start` adds, LN(x) A U; zero where there is none.

    x: the block's input, y: its norm1. An adapter without a norm of its own is given y.
    """
    if f"{start}.down.weight" not in state:
        return 0.0
    context = layer_norm(x, state, f"{start}.norm", eps) if f"{start}.norm.weight" in state else y
    found: Array = context @ state[f"{start}.down.weight"].T @ state[f"{start}.up.weight"].T
    return found


def dva(
    state: Weights,
    pixels: Array,
    heads: int,
    eps: float = 1e-6,
    unit: bool = False,
    adapter_eps: float | None = None,
) -> Array:
    """Return the embedding [D] of normalised pixels [3, S, S]: the CLS row behind the final norm.

    unit: divided by its length, as cosine retrieval has it. adapter_eps: of an adapter's own norm,
    None for eps.
    """
    own = eps if adapter_eps is None else adapter_eps

    def added(number: int, target: str, x: Array, y: Array) -> Array | float:
        return adapted(state, f"blocks.{number}.attn.ic_{target}", x, y, own)

    embedding: Array = vit_tokens(state, pixels, heads, eps, added=added).normed[0]
    if unit:
        embedding = embedding / max(float(np.sqrt(embedding @ embedding)), 1e-12)
    return embedding
