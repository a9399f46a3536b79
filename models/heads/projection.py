"""Hash heads without labels: PCA with iterative quantisation (ITQ), and random hyperplanes (LSH).

Both work on L2-normalised embeddings z and give hash = W z + b, shape [bits].
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.models.heads.base import Features, Head

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """A fitted head: weight float64 (bits, D) and bias (bits,)."""

    weight: FloatArray
    bias: FloatArray

    def hash(self, embeddings: npt.NDArray[np.floating]) -> FloatArray:
        """Return the real-valued hashes (N, bits) of embeddings (N, D)."""
        return normalise(embeddings) @ self.weight.T + self.bias


class ProjectionHead(Head):
    """A fitted head (ITQ, LSH): hash = W (embedding / |embedding|) + b.

    facts: how it was made, for the manifest. class_head: the checkpoint's, for logits beside the
    hash. Raises ValueError for values that do not fit.
    """

    FILE = "head.npz"

    def __init__(
        self,
        projection: Projection,
        facts: Mapping[str, Any],
        class_head: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.head = class_head
        bits, width = projection.weight.shape
        self.linear = nn.Linear(width, bits)
        self._facts = dict(facts)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor(projection.weight, dtype=torch.float32))
            self.linear.bias.copy_(torch.tensor(projection.bias, dtype=torch.float32))

    @property
    def bits(self) -> int:
        """Return the bits of a code."""
        return self.linear.out_features

    @property
    def classes(self) -> int:
        """Return how many logits there are, 0 without a class head."""
        return 0 if self.head is None else self.head.out_features

    def deciding(self) -> dict[str, Tensor]:
        """Return the projection: logits change no code."""
        return {name: value for name, value in self.state_dict().items() if "head." not in name}

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Return the hash [B, bits], and logits [B, C] where there is a class head."""
        found = {"hash": self.linear(F.normalize(features.embedding, dim=-1, eps=1e-12))}
        if self.head is not None:
            found["logits"] = self.head(features.embedding)
        return found

    def facts(self) -> dict[str, Any]:
        """Return how it was made."""
        return dict(self._facts)

    def files(self) -> dict[str, bytes]:
        """Return the head as a file: without it no PyTorch model gives the same codes."""
        content, weight, bias = io.BytesIO(), self.linear.weight, self.linear.bias
        np.savez(content, weight=weight.detach().numpy(), bias=bias.detach().numpy())
        return {self.FILE: content.getvalue()}

    @classmethod
    def read(
        cls, path: Path, facts: Mapping[str, Any], class_head: nn.Linear | None = None
    ) -> ProjectionHead:
        """Return the head that `files` wrote to `path`."""
        with np.load(path, allow_pickle=False) as data:
            return cls(Projection(data["weight"], data["bias"]), facts, class_head)


def normalise(embeddings: npt.NDArray[np.floating]) -> FloatArray:
    """Scale rows to length one."""
    rows = np.asarray(embeddings, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12))


def fit_itq(
    embeddings: npt.NDArray[np.floating], bits: int, seed: int = 0, iterations: int = 50
) -> Projection:
    """Fit PCA and the rotation that quantises it best (Gong et al., ITQ, CVPR 2011, section 3).

    embeddings: (N, D). PCA gives at most min(D, N - 1) directions; where more bits are asked for,
    further rotations of the same directions follow, each refined from its own random start.
    Raises DataError for fewer than two distinct embeddings or values that are not finite.
    """
    check_bits(bits)
    _check_seed(seed)
    if not np.isfinite(embeddings).all():
        raise DataError("the embeddings hold NaN or infinite values; check the checkpoint")
    if len(embeddings) == 0:
        raise DataError("an ITQ head needs at least two different photos, got 0; check --fit-data")
    rows = normalise(embeddings)
    mean = rows.mean(axis=0)
    centred = rows - mean
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    # Embeddings come in float32: what differs by less than its rounding does not differ.
    floor = 1e-5 * max(np.sqrt(len(rows)), float(values[0]))
    rank = int((values > floor).sum())
    if rank == 0:
        raise DataError(
            f"an ITQ head needs at least two different photos, got {len(rows)} that look the same; "
            "point --fit-data at more photos"
        )
    chooser = np.random.default_rng(seed)
    blocks = []
    for start in range(0, bits, rank):
        width = min(rank, bits - start)
        principal = directions[:width]
        rotation = _rotate(centred @ principal.T, chooser, iterations)
        blocks.append((principal.T @ rotation).T)
    weight = np.concatenate(blocks)
    return Projection(weight, -weight @ mean)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more")


def _rotate(projected: FloatArray, chooser: np.random.Generator, iterations: int) -> FloatArray:
    """Return the orthogonal R that brings sign(V R) and V R together (Gong et al., eq. 2)."""
    width = projected.shape[1]
    rotation, _ = np.linalg.qr(chooser.standard_normal((width, width)))
    for _ in range(iterations):
        signs = np.where(projected @ rotation > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(projected.T @ signs)
        rotation = left @ right
    return np.asarray(rotation)


def random_hyperplanes(
    width: int, bits: int, seed: int = 0, mean: FloatArray | None = None
) -> Projection:
    """Return seeded random hyperplanes, orthogonal in blocks of `width` (super-bit LSH, Ji et al.).

    mean: (D,) of normalised embeddings, to cut through the middle of the data where it is known.
    """
    check_bits(bits)
    _check_seed(seed)
    chooser = np.random.default_rng(seed)
    blocks = []
    for start in range(0, bits, width):
        square, _ = np.linalg.qr(chooser.standard_normal((width, width)))
        blocks.append(square[: bits - start])
    weight = np.concatenate(blocks)
    return Projection(weight, np.zeros(bits) if mean is None else -weight @ mean)
