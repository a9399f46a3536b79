"""What TensorRT and TensorRT-RTX have in common as engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Manifest
from fgdeploy.core import machine
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.engines import ort_layers
from fgdeploy.engines.base import Compiled, EngineSource, GraphEngine, Graphs, Outputs
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.cuda import Runner
from fgdeploy.engines.trt_build import compile_engine

_LEAST_FP8 = 8.9


class TrtEngine(GraphEngine):
    """A compiled engine on the first GPU.

    trt: the package. cuda_graphs: whether launching is recorded and replayed, which saves the CPU's
    time for each kernel; set it to False on the class to do without.
    """

    trt: ClassVar[Any]
    graphs: ClassVar[Graphs] = {
        "fp32": ("fp32",),
        "fp16": ("fp16",),
        "int8": ("int8-fp16", "int8"),
        "fp8": ("fp8",),
    }
    file_name = "engine.plan"
    gpu = True
    portable = False
    opsets = range(9, 21)
    cuda_graphs: bool = True

    def __init__(self, manifest: Manifest, source: EngineSource) -> None:
        super().__init__(manifest, source)
        self.max_batch = source.batches[-1]
        try:
            self._runner = Runner(self.trt, source.path, source.batches, self.cuda_graphs)
        except ModuleNotFoundError:
            raise MissingDependency(
                "cuda-bindings", self.backend, f"running a {self.backend} engine"
            ) from None
        self.cuda_graphs = self._runner.graphs

    def describe(self) -> str:
        """Return in one line what runs, where it comes from and how it is launched."""
        how = "CUDA graphs" if self.cuda_graphs else "no CUDA graphs"
        return f"{super().describe()[:-1]}, {how})"

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write TensorRT's engine for the batches of `settings`.

        Raises EngineError where it computes more in float32 than the graph asks for, UsageError for
        FP8 on a GPU that has none.
        """
        if precision == "fp8":
            _check_fp8(settings.compute_capabilities)
        frame = (manifest.image_size, manifest.image_size, 3)
        compiled = compile_engine(cls.trt, graph, frame, target, settings)
        if compiled.layers is not None:
            compiled.layers.check_floats(ort_layers.read(graph), cls.backend, precision)
        return compiled

    @classmethod
    def version(cls) -> str:
        """Return the package's version."""
        return str(cls.trt.__version__)

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        return Outputs.from_arrays(self._runner.run(frames))

    def _free(self) -> None:
        self._runner.close()


def _check_fp8(targets: tuple[str, ...]) -> None:
    """Raise UsageError for GPUs without FP8: those named, or else this machine's first."""
    capabilities = targets or tuple(gpu.compute_capability for gpu in machine.gpus()[:1])
    without = [one for one in capabilities if one is not None and float(one) < _LEAST_FP8]
    if without:
        raise UsageError(
            f"a GPU of compute capability {', '.join(without)} has no FP8, which begins with "
            f"{_LEAST_FP8}; take --int8 or --fp16"
        )
