"""Networks applied to photos as a device will see them: embeddings and codes, in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.progress import Progress
from fgdeploy.models.network import Network
from fgdeploy.photos import Photo, Preprocess, batches


class Embedder:
    """Runs networks over photos, resized and cropped as `preprocess` says, without augmentation.

    autocast: makes the context of forward passes. skipped: why photos cannot be read; they raise
    ImageError where it is None.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        device: torch.device | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        batch: int = 64,
        skipped: list[str] | None = None,
    ) -> None:
        self._preprocess, self._batch = preprocess, batch
        self._device = device or torch.device("cpu")
        self._autocast, self._skipped = autocast, skipped

    def embeddings(
        self, net: Network, photos: Sequence[Photo], progress: Progress
    ) -> npt.NDArray[np.float32]:
        """Return the encoder's embeddings (n, D); none at all are (0, 0)."""
        found = self._run(net, lambda pixels: net(pixels).embedding, photos, progress)
        rows = [x.float().cpu().numpy() for x in found]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def codes(self, net: Network, photos: Sequence[Photo], progress: Progress) -> UInt8Array:
        """Return the packed codes (n, bytes)."""
        found = self._run(net, lambda pixels: net.hashes(net(pixels))["hash"], photos, progress)
        return np.concatenate([np.packbits((h > 0).cpu().numpy(), axis=1) for h in found])

    def _run(
        self,
        net: Network,
        apply: Callable[[Tensor], Tensor],
        photos: Sequence[Photo],
        progress: Progress,
    ) -> Iterator[Tensor]:
        training = net.training
        net.to(self._device).eval()
        skipped = [] if self._skipped is None else self._skipped
        strict = self._skipped is None
        groups = batches(photos, self._preprocess, self._batch, skipped, strict, progress)
        try:
            for _, frames in groups:
                pixels = net.pixels(torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2))
                with torch.no_grad(), self._autocast():
                    yield apply(pixels)
        finally:
            net.train(training)
