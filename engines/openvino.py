"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Manifest
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import ov_blobs, ov_core, ov_graph, ov_layers, ov_product
from fgdeploy.engines.base import Compiled, EngineSource, GraphEngine, Graphs, Outputs
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.engine_layers import Layers
from fgdeploy.engines.ov_blobs import Blobs
from fgdeploy.engines.ov_core import openvino

# precision -> (what it computes in where the graph does not say, the capability that this needs,
# what it computes in without it; None where that would be another precision)
_ARITHMETIC: dict[str, tuple[str, str, str | None]] = {
    "fp32": ("f32", "FP32", "f32"),
    "bf16": ("bf16", "BF16", None),
    "fp16": ("f16", "FP16", "f32"),
    "int8": ("f32", "FP32", "f32"),
}


class OpenVinoEngine(GraphEngine):
    """A graph in OpenVINO's CPU plugin, tuned for the latency of one call.

    Each batch size that it was built for is a compiled model of constant shapes, loaded when first
    needed; other sizes run in pieces of these. Threads take turns: with requests of their own they
    ran no faster (measured), as the plugin computes one at a time.
    """

    backend = "openvino"
    graphs: ClassVar[Graphs] = {
        "fp32": ("fp32",),
        "bf16": ("fp32",),
        "fp16": ("fp16",),
        "int8": ("int8",),
    }
    file_name = "engine.blob"

    def __init__(self, manifest: Manifest, source: EngineSource) -> None:
        super().__init__(manifest, source)
        core = ov_core.make()
        settings = cpu_settings(core, source.precision, source.threads)
        self._make: Callable[[int], tuple[Any, Any]] | None
        if source.compiled:
            blobs = Blobs(source.path)
            self._sizes = blobs.sizes
            # A blob does not carry its arithmetic: the same settings make the same numbers.
            self._make = lambda size: _imported(core, blobs.read(size), settings)
        else:
            model = ov_graph.read(core, source.path)
            self._sizes = tuple(sorted(set(source.batches or BuildSettings().batches)))
            self._make = lambda size: (None, _compiled(core, model, size, settings))
        # Each with its weights, which must outlive it: a tuple frees its last item first.
        self._requests: dict[int, tuple[Any, Any]] = {}
        self._dropped: set[int] = set()
        self._request(self._sizes[0])  # what cannot be loaded says so now, not at the first run

    @classmethod
    def check_arithmetic(cls, precision: str) -> None:
        """Raise EngineError for INT8 where sums of 8-bit products clip, as without VNNI."""
        error = _int8_error() if precision == "int8" else 0.0
        if not error < ov_product.EXACT:
            raise EngineError(
                f"OpenVINO's INT8 is wrong on this CPU ({machine.cpu().name}): a product misses by "
                f"{error:.1%} of its largest number, since sums of 8-bit products clip where there "
                "is no VNNI; take onnxruntime's INT8, which is exact everywhere, or fp32"
            )

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write OpenVINO's compiled models, one a batch size, which load without an ONNX reader."""
        core = ov_core.make()
        chosen = cpu_settings(core, precision, settings.threads)
        model = ov_graph.read(core, graph)
        layers: list[Layers] = []

        def blob(size: int) -> tuple[int, bytes]:
            one = _compiled(core, model, size, chosen)
            layers.append(ov_layers.read(one, model))
            return size, bytes(one.export_model().read())

        ov_blobs.write(target, map(blob, settings.batches))
        return Compiled({"arithmetic": chosen["INFERENCE_PRECISION_HINT"]}, layers[0])

    @classmethod
    def version(cls) -> str:
        """Return OpenVINO's version."""
        return str(openvino.__version__).partition("-")[0]

    def at_once(self, count: int) -> int:
        """Return the batch size in pieces of which `count` frames would run, or `count`."""
        return min(count, piece(count, self._sizes))

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        count = len(frames)
        size = piece(count, self._sizes)
        request = self._request(size)
        parts: list[dict[str, npt.NDArray[np.generic]]] = []
        for start in range(0, count, size):
            part = frames[start : start + size]
            if len(part) < size:  # rows do not see each other, so what fills up changes nothing
                part = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), "u1")])
            results = request.infer({"frames": part})
            parts.append({port.get_any_name(): value.copy() for port, value in results.items()})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Outputs.from_arrays({name: value[:count] for name, value in whole.items()})

    def _request(self, size: int) -> Any:
        """Return the size's request. The others make room, unless the process goes to and fro.

        Each holds the weights again, but loading one takes a second on a busy machine, and a
        service runs whatever number of frames waits: what was dropped once and comes again stays.
        """
        if size not in self._requests and self._make is not None:
            while self._requests and size not in self._dropped:
                first = next(iter(self._requests))
                del self._requests[first]
                self._dropped.add(first)
            weights, compiled = self._make(size)
            self._requests[size] = weights, compiled.create_infer_request()
        return self._requests[size][1]

    def _free(self) -> None:
        self._requests, self._make = {}, None


@functools.cache
def _int8_error() -> float:
    """Return by how much INT8 is wrong here; 20 to 60 ms (measured), once a process."""
    core = ov_core.make()
    return ov_product.error(core, cpu_settings(core, "int8", 1))


def piece(count: int, sizes: Sequence[int]) -> int:
    """Return the batch size to run `count` frames in, all alike, the last one filled up.

    A run of s frames takes about as long as s + 1/2 frames (measured with EET ViT-S/16: 6 ms for
    one, 35 ms for 8). It depends on nothing else, so the same frames give the same bits.
    """
    return min(sorted(sizes, reverse=True), key=lambda size: -(-count // size) * (size + 0.5))


def _compiled(core: Any, model: Any, size: int, settings: Mapping[str, Any]) -> Any:
    ov_graph.set_batch(model, size)
    return core.compile_model(model, "CPU", settings)


def _imported(core: Any, blob: Any, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    return blob, ov_core.imported(core, blob, settings)


def cpu_settings(core: Any, precision: str, threads: int | None) -> dict[str, Any]:
    """Return how models are compiled for a precision. threads: None for all cores.

    Raises EngineError for a precision that this CPU has not.
    """
    hint, needs, otherwise = _ARITHMETIC[precision]
    if needs not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        if otherwise is None:
            raise EngineError(
                f"this CPU cannot compute in {precision} ({machine.cpu().name}); use fp32 or int8"
            )
        hint = otherwise
    # Left alone the plugin computes in bf16 where the CPU can; fp32 must mean fp32.
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads or machine.cores(),
        "INFERENCE_PRECISION_HINT": hint,
    }
    if machine.cores() < (os.cpu_count() or 1):
        settings["ENABLE_CPU_PINNING"] = False  # it would pin to cores that others work on
    return settings
