"""Hold graphs in memory against fp32 on photos that did not calibrate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from fgdeploy.bundle.checks import Checks, most_frames
from fgdeploy.calibration.observe import open_session
from fgdeploy.proof.parity import Limits, Parity, compare

BATCH = 8
_TIMED, _WARM_UP = 30, 5
# What INT8 keeps to. Photos that a model was trained on lie further from its decision borders: half
# a per cent more bits agree on them than on new ones (measured), hence 98.5 for 98 % on new photos.
# Bits alone decide where photos have no labels that repeat.
MAX_DROP, MIN_BITS, MIN_BITS_UNLABELLED = 0.5, 0.985, 0.99

Hashes = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


def default_gate(labels: Sequence[str | None]) -> Limits:
    """Return the limits of an INT8 graph: half a point of mAP and 98.5 % of bits, or 99 %."""
    known = {label for label in labels if label is not None}
    if None in labels or not 1 < len(known) < len(labels):
        return Limits(min_bit_agreement=MIN_BITS_UNLABELLED)
    return Limits(max_map_drop=MAX_DROP, min_bit_agreement=MIN_BITS)


class Judge:
    """Frames uint8 (N, S, S, 3) with labels, and what the fp32 graph makes of them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        frames: npt.NDArray[np.uint8],
        labels: Sequence[str | None],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.frames, self.labels = frames, labels
        self.hashes, self.codes = run(model, frames, progress)

    def parity(
        self,
        model: onnx.ModelProto,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Parity:
        """Return how a graph differs from fp32 on all frames."""
        hashes, codes = run(model, self.frames, progress)
        return compare(self.hashes, self.codes, hashes, codes, self.labels)

    def checks(self) -> Checks:
        """Return some of the frames with what fp32 makes of them, to go along in the bundle."""
        count = most_frames(self.frames.shape[1])
        return Checks(self.frames[:count], self.hashes[:count], self.codes[:count])

    def latency_ms(self, models: Sequence[onnx.ModelProto]) -> list[float]:
        """Return the median milliseconds of one frame in ONNX Runtime, the graphs in turn."""
        sessions = [open_session(model) for model in models]
        times: list[list[float]] = [[] for _ in models]
        for _ in range(_TIMED):
            for session, taken in zip(sessions, times, strict=True):
                start = time.perf_counter()
                session.run(["code"], {"frames": self.frames[:1]})
                taken.append(1e3 * (time.perf_counter() - start))
        return [float(np.median(taken[_WARM_UP:])) for taken in times]

    def error(self, model: onnx.ModelProto, count: int) -> tuple[float, float]:
        """Return (relative error of the hashes, share of bits changed) on the first frames."""
        hashes, codes = run(model, self.frames[:count])
        wanted = self.hashes[:count].astype(np.float64)
        error = np.linalg.norm(hashes - wanted) / max(float(np.linalg.norm(wanted)), 1e-30)
        changed = np.unpackbits(codes ^ self.codes[:count]).sum() / wanted.size
        return float(error), float(changed)


def run(
    model: onnx.ModelProto,
    frames: npt.NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Hashes, Codes]:
    """Return hashes (N, bits) and codes (N, bytes) that ONNX Runtime makes of frames."""
    session = open_session(model)
    hashes, codes = [], []
    for start in range(0, len(frames), BATCH):
        hash_, code = session.run(["hash", "code"], {"frames": frames[start : start + BATCH]})
        hashes.append(hash_)
        codes.append(code)
        progress(min(start + BATCH, len(frames)), len(frames))
    return np.concatenate(hashes), np.concatenate(codes)
