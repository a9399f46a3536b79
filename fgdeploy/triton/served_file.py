"""Which file of a bundle a Triton backend is given, and what it needs to run there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import GRAPHS, Bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import record
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.record import Record
from fgdeploy.triton.serving_settings import ServingSettings

# (backend, kind) -> precision -> graphs of the bundle, the best first. A graph may also be named.
_CHOICES = {
    ("onnxruntime", "cpu"): {"int8": ("int8-u8", "int8")},
    ("openvino", "cpu"): {},
    ("onnxruntime", "gpu"): {},
}


@dataclass(frozen=True)
class ServedFile:
    """A file for Triton: where it lies, how Triton's backend calls it, and the graph it is of.

    batches: the sizes it was built for, ascending. needs: in words, what the server must have.
    """

    path: Path
    name: str
    graph: str
    batches: tuple[int, ...]
    needs: tuple[str, ...] = ()
    record: Record | None = None


def choose(bundle: Bundle, settings: ServingSettings) -> ServedFile:
    """Return the file to serve. Raises BundleError or EngineError where the bundle has none."""
    if settings.backend == "tensorrt":
        return _plan(bundle, settings)
    choices = _CHOICES[settings.backend, settings.device].get(settings.precision, ())
    held = [key for key in choices if GRAPHS[key] in bundle.manifest.files]
    key = held[0] if held else settings.precision
    path = bundle.graph(key)
    return ServedFile(path, "model.onnx", key, _built_batches(bundle, settings), _needs(key))


def _needs(graph: str) -> tuple[str, ...]:
    if not graph.startswith("int8"):
        return ()
    return (
        "on x86 a CPU with VNNI: without it sums of 16 bits may clip, and Triton has no option",
    )


def _built_batches(bundle: Bundle, settings: ServingSettings) -> tuple[int, ...]:
    """Return the sizes that an engine of this kind was built for here, or the usual ones."""
    name = settings.backend + ("-cuda" if settings.device == "gpu" else "")
    precision = settings.precision
    for built in record.find(bundle):
        if built.record and (built.record.backend, built.record.precision) == (name, precision):
            return built.record.batches
    return BuildSettings().batches


def _plan(bundle: Bundle, settings: ServingSettings) -> ServedFile:
    """Return a verified TensorRT engine: of one GPU, and one version of TensorRT."""
    how = f"fgdeploy build-engine {bundle.path.name} --backend tensorrt --{settings.precision}"
    found = [
        (built.folder, built.record)
        for built in record.find(bundle)
        if built.record is not None
        and (built.record.backend, built.record.precision) == ("tensorrt", settings.precision)
        and settings.engine in (None, built.folder.name)
    ]
    if not found:
        named = f" called {settings.engine}" if settings.engine else ""
        raise EngineError(
            f"{bundle.path.name} holds no TensorRT engine of {settings.precision}{named}; a plan "
            f"is of one GPU and one TensorRT version, so on the server's own GPU run: {how}"
        )
    if len(found) > 1:
        names = ", ".join(folder.name for folder, _ in found)
        raise EngineError(
            f"{bundle.path.name} holds {len(found)} TensorRT engines of {settings.precision} "
            f"({names}); name one with --engine"
        )
    folder, entry = found[0]
    path = record.verify(folder, entry)
    expected = bundle.manifest.files.get(GRAPHS.get(entry.graph, ""), {}).get("sha256")
    if entry.graph_sha256 != expected:
        raise EngineError(f"{folder.name} was built from another graph; run again: {how}")
    device = entry.device
    return ServedFile(
        path,
        "model.plan",
        entry.graph,
        entry.batches,
        (
            f"the GPU {device['name']} (compute capability {device['compute_capability']})",
            f"TensorRT {entry.backend_version}: NVIDIA's Deep Learning Frameworks Support Matrix "
            "tells which release of Triton has it",
        ),
        entry,
    )
