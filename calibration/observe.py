"""What goes into each layer on real photos: extremes of every channel and a sample of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from fgdeploy.engines.onnxruntime import session_options

ROWS_PER_IMAGE = 16
# The CLS row is one of T, but it alone becomes the hash: its errors count as those of many rows.
CLS_WEIGHT = 8.0

Doubles = npt.NDArray[np.float64]


@dataclass
class Observed:
    """One activation [B, T, K] over all photos.

    low, high: (K,) extremes of each channel. rows: (R, K) sample, of each photo the CLS row and
    some others; weights: (R,) how much a row counts.
    """

    low: Doubles
    high: Doubles
    parts: list[npt.NDArray[np.float32]] = field(default_factory=list)
    part_weights: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @property
    def rows(self) -> Doubles:
        """Return the sample, (R, K)."""
        return np.concatenate(self.parts).astype(np.float64)

    @property
    def weights(self) -> Doubles:
        """Return the weight of each row of the sample, (R,)."""
        return np.concatenate(self.part_weights).astype(np.float64)

    def add(self, values: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
        """Take one batch [B, T, K] into account."""
        images, tokens, channels = values.shape
        flat = values.reshape(-1, channels)
        self.low = np.minimum(self.low, flat.min(axis=0))
        self.high = np.maximum(self.high, flat.max(axis=0))
        count = min(ROWS_PER_IMAGE, tokens - 1)
        picks = np.stack([1 + rng.permutation(tokens - 1)[:count] for _ in range(images)])
        others = np.take_along_axis(values, picks[:, :, None], axis=1).reshape(-1, channels)
        self.parts += [values[:, 0].copy(), others]
        self.part_weights += [
            np.full(images, CLS_WEIGHT, np.float32),
            np.ones(len(others), np.float32),
        ]


def observe(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Iterable[npt.NDArray[np.uint8]],
    seed: int = 0,
) -> dict[str, Observed]:
    """Run the fp32 graph on frames uint8 (B, S, S, 3) and return what the tensors held."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in tensors:
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(probe)
    rng = np.random.default_rng(seed)
    seen: dict[str, Observed] = {}
    for frames in batches:
        for name, values in zip(tensors, session.run(None, {"frames": frames}), strict=True):
            if name not in seen:
                bound = np.full(values.shape[-1], np.inf)
                seen[name] = Observed(bound, -bound)
            seen[name].add(values, rng)
    return seen


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a graph that lies in memory in ONNX Runtime's CPU provider, as its engine does."""
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )
