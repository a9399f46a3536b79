"""Engines: what runs a bundle's graph on a machine. `open_engine` picks one by name.

Each backend module is named after its dependency and imported only when asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

from fgdeploy.bundle import Bundle
from fgdeploy.engines.base import Engine, Outputs
from fgdeploy.errors import EngineError, MissingDependency, UsageError

__all__ = ["BACKENDS", "Backend", "Engine", "Outputs", "available", "open_engine"]


@dataclass(frozen=True)
class Backend:
    """Where a backend lives and what it needs: the module it imports and the extra to install."""

    module: str
    type_name: str
    needs: str
    extra: str


# In order of preference for `auto`: the portable default first, until engines are measured here.
BACKENDS: dict[str, Backend] = {
    "onnxruntime": Backend(
        "fgdeploy.engines.onnxruntime", "OnnxRuntimeEngine", "onnxruntime", "cpu"
    ),
    "openvino": Backend("fgdeploy.engines.openvino", "OpenVinoEngine", "openvino", "cpu"),
}


MAX_THREADS = 1024


def available() -> list[str]:
    """Return the names of the backends whose package is installed, in order of preference."""
    return [name for name, item in BACKENDS.items() if importlib.util.find_spec(item.needs)]


def open_engine(
    bundle: Bundle, backend: str = "auto", precision: str = "fp32", threads: int | None = None
) -> Engine:
    """Open a bundle's graph in a backend; `auto` takes the first that is installed.

    threads: CPU threads for one call; None leaves it to the backend (all cores).
    Raises MissingDependency, EngineError, BundleError (no such precision) or UsageError.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            f"expected at least one thread, and at most {MAX_THREADS}, got {threads}; leave it out "
            "for all cores"
        )
    if backend == "auto":
        backend = next(iter(available()), "onnxruntime")
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; choose auto, {', '.join(BACKENDS)}")
    entry = BACKENDS[backend]
    if importlib.util.find_spec(entry.needs) is None:
        raise MissingDependency(entry.needs, entry.extra, f"the {backend} engine")
    graph = bundle.graph(precision)
    try:
        engine_type = getattr(importlib.import_module(entry.module), entry.type_name)
        engine: Engine = engine_type(graph, bundle.manifest, precision, threads)
    except Exception as error:  # each backend has errors of its own, all meaning "cannot load"
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"{backend} cannot load {graph}: {reason}; see: fgdeploy doctor"
        ) from error
    return engine
