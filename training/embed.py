"""Networks in training applied to photos as a device will see them: embeddings and codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fgdeploy.core.codes import UInt8Array
from fgdeploy.photos import Photo
from fgdeploy.photos.images import Preprocess
from fgdeploy.training.network import HashNet
from fgdeploy.training.precision import Precision

Progress = Callable[[int, int], None]
BATCH = 64


class Embedder:
    """Runs networks over photos, resized and cropped as `preprocess` says, without augmentation."""

    def __init__(self, preprocess: Preprocess, precision: Precision) -> None:
        self._preprocess, self._precision = preprocess, precision
        self._mean = torch.tensor(preprocess.mean).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocess.std).view(1, 3, 1, 1) * 255

    def embeddings(
        self, net: HashNet, chosen: Sequence[Photo], progress: Progress
    ) -> npt.NDArray[np.float32]:
        """Return the encoder's embeddings (n, D)."""
        rows = [x.float().cpu().numpy() for x in self._run(net, net.encoder, chosen, progress)]
        return np.concatenate(rows)

    def codes(self, net: HashNet, chosen: Sequence[Photo], progress: Progress) -> UInt8Array:
        """Return the packed codes (n, bytes)."""
        rows = [
            np.packbits((h > 0).cpu().numpy(), axis=1)
            for h in self._run(net, lambda images: net(images)[0], chosen, progress)
        ]
        return np.concatenate(rows)

    def _run(
        self,
        net: HashNet,
        apply: Callable[[Tensor], Tensor],
        chosen: Sequence[Photo],
        progress: Progress,
    ) -> Iterator[Tensor]:
        device = self._precision.device
        mean, std = self._mean.to(device), self._std.to(device)
        training = net.training
        net.to(device).eval()
        try:
            with ThreadPoolExecutor(2) as pool:
                for start in range(0, len(chosen), BATCH):
                    part = chosen[start : start + BATCH]
                    frames = list(pool.map(lambda photo: self._preprocess.frame(photo.path), part))
                    pixels = torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2)
                    with torch.no_grad(), self._precision.autocast():
                        yield apply((pixels.float() - mean) / std)
                    progress(start + len(part), len(chosen))
        finally:
            net.train(training)
