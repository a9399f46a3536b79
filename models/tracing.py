"""What a network made of the patches of an image: recorded from one run, block by block.

Like `plan`, it listens to the modules of a network as it is; nothing is computed in another way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import counted
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.network import Network
from fgdeploy.models.origins import Origin
from fgdeploy.models.tokens import Tokens

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """What the rows behind a block (from 1) stand for, of one image.

    shares: [rows, N], what part of each of the N patches a row holds. Rows that hold none are left
    out; a patch that no row holds was dropped.
    """

    block: int
    shares: Array


@dataclass(frozen=True)
class Traced:
    """One run on one image. extras: the encoder's own, by name, without the axis of images.

    held: behind each block that changed what rows stand for, but the last, behind which CLS alone
    is read. grid: patches in (rows, columns), N of them.
    """

    grid: tuple[int, int]
    held: tuple[Held, ...]
    extras: Mapping[str, npt.NDArray[Any]]


def trace(network: Network, frames: npt.NDArray[np.uint8], with_rows: bool = True) -> list[Traced]:
    """Return what a network does with frames, uint8 [B, S, S, 3], image by image.

    with_rows: say what rows stand for; else `held` is empty and the extras are all there is. Of a
    method that looks twice, the first look. Raises UsageError for a step that does not say where
    its rows come from.
    """
    seen, features = _run(network, frames, False, with_rows)
    extras = {name: value.numpy() for name, value in features.items()}
    grid = backbones.geometry(network.encoder.vit).grid
    return [
        Traced(
            grid,
            tuple(_changes([one[image] for one in seen])) if with_rows else (),
            {name: value[image] for name, value in extras.items()},
        )
        for image in range(len(frames))
    ]


def rollout(network: Network, frames: npt.NDArray[np.uint8]) -> Array:
    """Return how much of each patch attention brings to CLS, [B, rows, columns].

    Attention rollout (Abnar and Zuidema, arXiv 2005.00928): the product over blocks of half the
    attention, in the mean of the heads, and half the identity; rows that a step drops, merges or
    brings back are dropped, merged and brought back in it. Of a method that looks twice, the first
    look. Raises UsageError for a step that does not say where its rows come from, or what its block
    attended: run the published network.
    """
    seen, _ = _run(network, frames, rolled=True)
    shape = backbones.geometry(network.encoder.vit)
    return seen[-1][:, 0].reshape(len(frames), *shape.grid)


def _changes(rows: list[Array]) -> Iterator[Held]:
    """Yield what rows hold where it is not what they held before; `rows` of each block in order."""
    before = np.eye(rows[0].shape[1])
    for block, shares in enumerate(rows[:-1], start=1):
        now = shares[shares.sum(axis=1) > 0]
        if now.shape != before.shape or not np.allclose(now, before):
            yield Held(block, now)
        before = now


def _run(
    network: Network, frames: npt.NDArray[np.uint8], rolled: bool, with_rows: bool = True
) -> tuple[list[Array], Mapping[str, Tensor]]:
    """Return the origin of the rows behind each block, [B, T, N] each, and the encoder's extras."""
    seen: list[Origin] = []
    listening = _listening(network.encoder, seen, rolled) if with_rows else contextlib.nullcontext()
    with torch.inference_mode(), listening, _explaining(network.encoder, not rolled):
        pixels = network.pixels(torch.from_numpy(frames).permute(0, 3, 1, 2))
        features = network(pixels)
    if rolled and seen[-1].looks != len(seen):
        raise UsageError(
            f"no rollout: {counted(seen[-1].looks, 'step')} of {len(seen)} said what the block "
            "attended; take the published network, and let every step call Tokens.seeing"
        )
    return [one.rows.double().numpy() for one in seen], features.extras


@contextlib.contextmanager
def _explaining(encoder: Any, wanted: bool) -> Iterator[None]:
    """Let an encoder give what it has for pictures alone."""
    before = encoder.explains
    encoder.explains = wanted
    try:
        yield
    finally:
        encoder.explains = before


@contextlib.contextmanager
def _listening(encoder: Any, seen: list[Origin], rolled: bool) -> Iterator[None]:
    """Start an origin behind the first embedding, and collect it behind each block of that run."""

    def begin(_: Any, given: Any, tokens: Tokens) -> Tokens | None:
        if seen:
            return None  # a second look
        return tokens.having(
            tokens.x, origin=Origin.start(tokens.x, tokens.prefix, tokens.suffix, rolled)
        )

    def collect(_: Any, given: Any, tokens: Tokens) -> None:
        if tokens.origin is None:
            return
        seen.append(tokens.origin)
        if tokens.origin.rows.shape[1] != tokens.count:
            raise UsageError(
                f"the step of block {len(seen)} does not say which patches its rows stand for "
                f"(expected {tokens.count} of them, got {tokens.origin.rows.shape[1]}); let it "
                "pass on Tokens.traced"
            )

    handles = [encoder.embed.register_forward_hook(begin)]
    handles += [step.register_forward_hook(collect) for step in encoder.walk.steps.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
