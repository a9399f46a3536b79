"""Hold an exported graph against PyTorch before anybody may use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import ExportError
from fgdeploy.engines import Outputs, open_engine
from fgdeploy.export.reference import PyTorchEngine
from fgdeploy.photos.generated_frames import wave_frame
from fgdeploy.photos.images import Frame
from fgdeploy.proof.parity import Limits, Parity, compare, further

MAX_HASH_DIFF = 1e-4
MAX_OUTPUT_ERROR = 1e-3
FRAMES = 8


def frames_for(size: int, photos: Sequence[Frame], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return 8 frames (8, S, S, 3): the given ones first, then smooth generated pictures."""
    chooser = np.random.default_rng(seed)
    frames = [np.asarray(photo) for photo in photos[:FRAMES]]
    while len(frames) < FRAMES:
        frames.append(wave_frame(size, chooser))
    return np.stack(frames)


def prove(bundle: Bundle, reference: PyTorchEngine, frames: npt.NDArray[np.uint8]) -> Parity:
    """Run the bundle's fp32 graph in ONNX Runtime and compare it with PyTorch.

    Raises ExportError unless max |hash difference| <= 1e-4, every code bit with |hash| > 1e-3 is
    equal and the error of every further output is <= 1e-3, in one batch and photo by photo.
    """
    expected = reference.run(frames)
    with open_engine(bundle, "onnxruntime") as engine:
        batch = engine.run(frames)
        singles = [engine.run(frames[i : i + 1]) for i in range(len(frames))]
    wanted = expected.arrays()
    results = [
        compare(
            expected.hash,
            expected.code,
            found.hash,
            found.code,
            others=further(wanted, found.arrays()),
        )
        for found in (batch, Outputs.concatenate(singles))
    ]
    worst = max(results, key=lambda result: (result.clear_bits_differ, result.max_hash_diff))
    if worst.max_hash_diff > MAX_HASH_DIFF or worst.clear_bits_differ:
        raise ExportError(
            f"the graph differs from PyTorch: max |hash difference| {worst.max_hash_diff:.2g} "
            f"(limit {MAX_HASH_DIFF:g}), {worst.clear_bits_differ} clear bits differ; nothing was "
            f"written; {_advice(bundle, reference, frames, expected)}"
        )
    for result in results:
        if broken := result.breaches(Limits(max_output_error=MAX_OUTPUT_ERROR)):
            raise ExportError(
                f"the graph differs from PyTorch: {'; '.join(broken)}; nothing was written; "
                f"{_advice(bundle, reference, frames, expected)}"
            )
    return worst


def _advice(
    bundle: Bundle, reference: PyTorchEngine, frames: npt.NDArray[np.uint8], expected: Outputs
) -> str:
    """Say whether the graph is to blame, or a near-tie that PyTorch itself decides by rounding."""
    own = float(np.abs(reference.in_float64(frames) - expected.hash).max())
    if own > MAX_HASH_DIFF:
        return (
            f"PyTorch's own float32 and float64 differ by {own:.2g} on these images, so a token "
            "choice hangs on rounding; use trained weights, other --fit-data or another --seed"
        )
    names = ",".join(bundle.manifest.graph.get("simplifications", ()))
    return (
        f"try another --opset, or --without {names}; with random weights a token choice may hang "
        "on rounding: try another --seed"
    )
