"""The backends by name: where they live and what they need. Importing this imports none of them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, MissingDependency, UsageError
from fgdeploy.engines.base import GraphEngine, one_line


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and what it needs.

    needs: the package that it imports, from `extra`; runs_with: modules of which running takes one
    beside it; holds: a file in the package without which it is another build; gpu: runs on NVIDIA
    GPUs.
    """

    module: str
    type_name: str
    needs: str
    extra: str
    runs_with: tuple[str, ...] = ()
    holds: str = ""
    gpu: bool = False


# In order of preference for `auto` where nothing was measured: the portable default first.
BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend(
        "fgdeploy.engines.onnxruntime", "OnnxRuntimeEngine", "onnxruntime", "cpu"
    ),
    "openvino": Backend("fgdeploy.engines.openvino", "OpenVinoEngine", "openvino", "cpu"),
    "onnxruntime-cuda": Backend(
        "fgdeploy.engines.ort_cuda",
        "OnnxRuntimeCudaEngine",
        "onnxruntime",
        "gpu",
        holds="capi/libonnxruntime_providers_cuda.so",
        gpu=True,
    ),
    "tensorrt": Backend(
        "fgdeploy.engines.tensorrt",
        "TensorRtEngine",
        "tensorrt",
        "tensorrt",
        runs_with=("pycuda", "cuda.bindings"),
        gpu=True,
    ),
    "tensorrt-rtx": Backend(
        "fgdeploy.engines.tensorrt_rtx",
        "TensorRtRtxEngine",
        "tensorrt_rtx",
        "tensorrt-rtx",
        runs_with=("pycuda", "cuda.bindings"),
        gpu=True,
    ),
}


def installed(name: str) -> bool:
    """Return whether a backend's package is here, whatever the machine."""
    entry = BACKENDS[name]
    spec = importlib.util.find_spec(entry.needs)
    if spec is None or not entry.holds:
        return spec is not None
    folders = spec.submodule_search_locations or []
    return any((Path(folder) / entry.holds).is_file() for folder in folders)


def available() -> list[str]:
    """Return the names of the backends that could run here, in order of preference."""
    return [name for name in BACKENDS if _runs(name)]


def _runs(name: str) -> bool:
    entry = BACKENDS[name]
    return (
        installed(name)
        and (not entry.runs_with or any(map(_importable, entry.runs_with)))
        and (not entry.gpu or bool(machine.gpus()))
    )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def check_name(name: str) -> None:
    """Raise UsageError for a name that is no backend's."""
    if name not in BACKENDS:
        raise UsageError(f"no backend {name!r}; choose auto, {', '.join(BACKENDS)}")


def engine_type(name: str) -> type[GraphEngine]:
    """Import a backend. Raises UsageError, MissingDependency, or EngineError if it is broken."""
    check_name(name)
    entry = BACKENDS[name]
    if not installed(name):
        package = "onnxruntime-gpu" if entry.holds else entry.needs
        raise MissingDependency(package, entry.extra, f"the {name} engine")
    try:
        found: type[GraphEngine] = getattr(importlib.import_module(entry.module), entry.type_name)
    except Exception as error:  # a library that does not load raises what it likes
        raise EngineError(
            f"{name} cannot be imported: {one_line(error)}; see: fgdeploy doctor"
        ) from error
    return found
