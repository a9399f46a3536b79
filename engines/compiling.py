"""Compile a bundle's graph for this machine, try it, and keep it beside the graph."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy import __version__
from fgdeploy.bundle import GRAPHS, Bundle, sha256
from fgdeploy.core import atomic, machine
from fgdeploy.core.errors import EngineError, FgdeployError, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.engines import record
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.base import Compiled, EngineSource, GraphEngine, one_line
from fgdeploy.engines.bill_of_materials import of_this_process
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.choosing import graph_key, load
from fgdeploy.engines.record import Built, Record

# Graphs that do not have the opset of the manifest.
_OPSETS = {"int8-fp16": 19, "fp8": 19}
# The most telling extension first: it names the engine's folder.
_TELLING = ["amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd"]


def build(
    bundle: Bundle,
    backend: str,
    precision: str,
    settings: BuildSettings | None = None,
    notify: Notify = silent,
) -> Built:
    """Compile an engine into `BUNDLE/engines/` and run one frame through it.

    An engine of the same backend, precision and kind of device is replaced, once the new one has
    run. Nothing is left behind on any failure. Raises UsageError, MissingDependency or EngineError.
    """
    settings = settings or BuildSettings()
    kind = engine_type(backend)
    kind.check_arithmetic(precision)
    key = _graph(bundle, kind, precision)
    device = _device(kind, settings)
    _check_opset(bundle, kind, key)
    target = bundle.path / record.FOLDER / f"{backend}-{precision}-{slug(device)}"
    with _new_folder(target) as folder:
        began = time.perf_counter()
        path = folder / kind.file_name
        compiled = _compile(kind, bundle, bundle.graph(key), precision, path, settings)
        digest = sha256(path)
        entry = Record(
            backend=backend,
            precision=precision,
            file=path.name,
            sha256=digest,
            bytes=path.stat().st_size,
            graph=key,
            graph_sha256=bundle.manifest.files[GRAPHS[key]]["sha256"],
            backend_version=kind.version(),
            device=device,
            batches=settings.batches,
            flags=compiled.flags,
            build_s=round(time.perf_counter() - began, 3),
            peak_host_mib=round(machine.peak_memory_mib(), 1),
            created_by=f"fgdeploy {__version__}",
            layers=None if compiled.layers is None else compiled.layers.to_json(),
        )
        if settings.compute_capabilities:
            notify("compiled for GPUs elsewhere, so it could not be tried here")
        else:
            _try(
                bundle,
                kind,
                EngineSource(path, precision, True, settings.threads, settings.batches),
            )
        bill = of_this_process(entry.name, entry.backend_version, digest, device)
        entry = dataclasses.replace(entry, sbom=bill)
        entry.write(folder)
    return Built(target, entry)


def slug(device: Mapping[str, Any]) -> str:
    """Return the part of a folder's name that tells devices apart: [a-z0-9_-] only."""
    if device["kind"] == "cpu":
        best = next((name for name in _TELLING if name in device["features"]), "generic")
        words = f"{device['arch']}-{best}"
    elif device["name"] is None:
        words = "-".join(_sm(capability) for capability in device["compute_capabilities"])
    else:
        words = f"{_sm(device['compute_capability'])}-{device['name']}"
    return re.sub(r"[^a-z0-9_]+", "-", words.lower()).strip("-")[:100]


def _sm(capability: str) -> str:
    return f"sm{capability.replace('.', '')}"


def _graph(bundle: Bundle, kind: type[GraphEngine], precision: str) -> str:
    key = graph_key(bundle, kind, precision)
    if key is None:
        raise EngineError(
            f"{bundle.path.name} holds no {precision} graph; run: fgdeploy calibrate "
            f"{bundle.path.name}{' --fp8' if precision == 'fp8' else ''}"
        )
    return key


def _device(kind: type[GraphEngine], settings: BuildSettings) -> dict[str, Any]:
    """Return the record's entry for the device to build for."""
    if settings.compute_capabilities:
        if kind.backend != "tensorrt-rtx":
            raise UsageError(
                f"{kind.backend} compiles for this machine's own device only; leave the compute "
                "capabilities out, or take --backend tensorrt-rtx"
            )
        chosen = sorted(set(settings.compute_capabilities), key=float)
        return {"kind": "cuda", "name": None, "compute_capabilities": chosen}
    if not kind.gpu:
        cpu = machine.cpu()
        return {
            "kind": "cpu",
            "name": cpu.name or platform.machine(),
            "arch": cpu.arch,
            "features": list(cpu.features),
        }
    gpus = machine.gpus()
    if not gpus:
        ways = "build on the device itself, or take a CPU backend such as openvino"
        if kind.backend == "tensorrt-rtx":
            ways = "name the GPUs to compile for with --compute-capability, such as 8.6"
        raise EngineError(f"{kind.backend} needs a GPU: no NVIDIA GPU on this machine; {ways}")
    gpu = gpus[0]
    return {
        "kind": "cuda",
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
    }


def _check_opset(bundle: Bundle, kind: type[GraphEngine], key: str) -> None:
    opset = _OPSETS.get(key, bundle.manifest.graph.get("opset"))
    if kind.opsets is not None and opset not in kind.opsets:
        raise EngineError(
            f"{kind.backend} reads ONNX opsets {kind.opsets[0]} to {kind.opsets[-1]}, this graph "
            f"has {opset}; export again with --opset 18"
        )


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder that becomes `target`, with its parent; neither is left after a failure."""
    parent = target.parent
    if parent.is_symlink():
        raise EngineError(f"{parent} is a symbolic link, which a bundle must not hold; remove it")
    try:
        parent.mkdir(exist_ok=True)
        with atomic.new_folder(target, replace=True) as folder:
            yield folder
    except OSError as error:
        raise EngineError(
            f"cannot write {target} ({error.strerror or error}); nothing was kept; free some space "
            "or check the rights, and build again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # only where it is empty
            parent.rmdir()


def _compile(
    kind: type[GraphEngine],
    bundle: Bundle,
    graph: Path,
    precision: str,
    target: Path,
    settings: BuildSettings,
) -> Compiled:
    try:
        compiled = kind.compile(graph, precision, bundle.manifest, target, settings)
        # On a CPU, FP16 graphs run as fp32 and are never built unasked.
        if compiled.layers is not None and (kind.gpu or precision != "fp16"):
            compiled.layers.check(kind.backend, precision)
        return compiled
    except (FgdeployError, OSError):
        raise
    except Exception as error:  # each backend has errors of its own
        raise EngineError(
            f"{kind.backend} cannot compile {graph.name}: {one_line(error)}; nothing was kept; "
            "see: fgdeploy doctor"
        ) from error


def _try(bundle: Bundle, kind: type[GraphEngine], source: EngineSource) -> None:
    size = bundle.manifest.image_size
    with load(bundle, kind, source) as engine:
        engine.run(np.zeros((1, size, size, 3), np.uint8))
