"""The first look at the training photos: their embeddings, and batch norms that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fgdeploy.core.errors import TrainingError
from fgdeploy.models.heads.aggregate import Aggregate
from fgdeploy.models.network import Network

Embeddings = npt.NDArray[np.float32]


def look(net: Network, embed: Callable[[Network], Embeddings]) -> Embeddings:
    """Return the embeddings (n, D) of the training photos by a network, from one pass over them.

    A new aggregate has no statistics yet: it gets those of all the photos first. Its rows are kept
    for that in the computer's memory, twice the size of the embeddings. Raises TrainingError for
    embeddings that are no numbers.
    """
    aggregate = next((part for part in net.modules() if isinstance(part, Aggregate)), None)
    rows = embed(net) if aggregate is None else _settled(net, aggregate, embed)
    if not np.isfinite(rows).all():
        raise TrainingError(
            "the network gives NaN or infinite features before any training; check --weights, "
            "or pass --precision fp32"
        )
    return rows


def _settled(
    net: Network, aggregate: Aggregate, embed: Callable[[Network], Embeddings]
) -> Embeddings:
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
        kept.append(given[0].float().cpu())

    handle = aggregate.register_forward_pre_hook(keep)
    try:
        embed(net)
    finally:
        handle.remove()
    device = next(aggregate.parameters()).device
    found: Embeddings = aggregate.cpu().settle(torch.cat(kept)).numpy()
    aggregate.to(device)
    return found
