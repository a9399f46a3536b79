"""Hold graphs in memory against fp32 on photos that did not calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx

from fgdeploy.bundle.checks import Checks, most_frames
from fgdeploy.calibration.observe import open_session
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.timing import time_calls
from fgdeploy.engines.base import Outputs, run_in_batches
from fgdeploy.proof.parity import Parity, compare

_TIMED, _WARM_UP = 25, 5


class Judge:
    """Frames uint8 (N, S, S, 3) with labels, and what the fp32 graph makes of them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        frames: npt.NDArray[np.uint8],
        labels: Sequence[str | None],
        progress: Progress = no_progress,
    ) -> None:
        self.frames, self.labels = frames, labels
        found = run(model, frames, progress)
        self.hashes, self.codes = found.hash, found.code

    def parity(
        self,
        model: onnx.ModelProto,
        progress: Progress = no_progress,
    ) -> Parity:
        """Return how a graph differs from fp32 on all frames."""
        found = run(model, self.frames, progress)
        return compare(self.hashes, self.codes, found.hash, found.code, self.labels)

    def checks(self, int8: onnx.ModelProto) -> Checks:
        """Return some of the frames with what fp32 and INT8 make of them, for the bundle."""
        count = most_frames(self.frames.shape[1])
        frames = self.frames[:count]
        return Checks(frames, self.hashes[:count], self.codes[:count], run(int8, frames).code)

    def latency_ms(self, models: Sequence[onnx.ModelProto]) -> list[float]:
        """Return the median milliseconds of one frame in ONNX Runtime, the graphs in turn."""
        feed = {"frames": self.frames[:1]}
        calls = [partial(open_session(model).run, ["code"], feed) for model in models]
        times = time_calls(*calls, seconds=0, least=_TIMED, warm_up=_WARM_UP)
        return [float(np.median(taken)) for taken in times]

    def error(self, model: onnx.ModelProto, count: int) -> tuple[float, float]:
        """Return (relative error of the hashes, share of bits changed) on the first frames."""
        found = run(model, self.frames[:count])
        wanted = self.hashes[:count].astype(np.float64)
        error = np.linalg.norm(found.hash - wanted) / max(float(np.linalg.norm(wanted)), 1e-30)
        changed = np.unpackbits(found.code ^ self.codes[:count]).sum() / wanted.size
        return float(error), float(changed)


def run(
    model: onnx.ModelProto,
    frames: npt.NDArray[np.uint8],
    progress: Progress = no_progress,
) -> Outputs:
    """Return the hashes and codes that ONNX Runtime makes of frames, in batches."""
    session = open_session(model)

    def one(frames: npt.NDArray[np.uint8]) -> Outputs:
        hash_, code = session.run(["hash", "code"], {"frames": frames})
        return Outputs(code, hash_)

    return run_in_batches(one, frames, progress=progress)
