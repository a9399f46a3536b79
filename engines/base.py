"""What every engine is: frames in, codes and hashes out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Manifest
from fgdeploy.closing import Closing
from fgdeploy.errors import EngineError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """The graph's outputs for B frames.

    code: uint8 (B, ceil(bits/8)), most significant bit first; hash: float32 (B, bits);
    embedding: float32 (B, D) or None; logits: float32 (B, C) or None.
    """

    code: npt.NDArray[np.uint8]
    hash: FloatArray
    embedding: FloatArray | None = None
    logits: FloatArray | None = None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Outputs:
        """Make Outputs from arrays by name, copied so that no engine buffer leaks out."""
        wanted = {"code", "hash"}
        if not wanted <= set(arrays) <= wanted | {"embedding", "logits"}:
            raise EngineError(
                f"expected the outputs code, hash[, embedding, logits], got {', '.join(arrays)}; "
                "export the bundle again"
            )
        copied = {name: np.array(value) for name, value in arrays.items()}
        return cls(**copied)


class Engine(Closing):
    """A compiled model, a context manager. `run` checks its input, `_run` does the work."""

    backend: str
    precision: str

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._open = True

    def close(self) -> None:
        """Free the engine; running it afterwards raises EngineError. Twice does no harm."""
        self._open = False

    def run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        """Run frames, uint8 (B, S, S, 3) RGB with B >= 1. Raises EngineError for anything else."""
        if not self._open:
            raise EngineError(f"the {self.backend} engine is closed; open a new one")
        size = self.manifest.image_size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
            raise EngineError(
                f"expected frames uint8 (B, {size}, {size}, 3), got {frames.dtype} {frames.shape}; "
                "make them with Preprocess.frame"
            )
        if frames.shape[0] == 0:
            raise EngineError("expected at least one frame, got none; check the list of photos")
        try:
            outputs = self._run(np.ascontiguousarray(frames))
        except EngineError:
            raise
        except Exception as error:  # each backend has errors of its own
            reason = " ".join(str(error).split())[:300]
            raise EngineError(
                f"{self.backend} failed on {frames.shape[0]} frames: {reason}; see: fgdeploy doctor"
            ) from error
        return self._checked(outputs, frames.shape[0])

    def _checked(self, outputs: Outputs, count: int) -> Outputs:
        code, bits = (count, self.manifest.code_bytes), self.manifest.bits
        if outputs.code.shape != code or outputs.hash.shape != (count, bits):
            raise EngineError(
                f"{self.backend}: expected code {code} and hash {(count, bits)}, got "
                f"{outputs.code.shape} and {outputs.hash.shape}; export the bundle again"
            )
        return outputs

    @abstractmethod
    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs: ...
