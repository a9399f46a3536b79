"""Does a built engine fit this bundle and this machine? Said in words before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fgdeploy.bundle import GRAPHS, Bundle
from fgdeploy.core.machine import Cpu, Gpu
from fgdeploy.engines.record import Record

_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-cuda": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}


def mismatches(
    record: Record, bundle: Bundle, version: str | None, cpu: Cpu, gpus: Sequence[Gpu]
) -> list[str]:
    """Return each difference between what an engine was built for and what is here.

    version: of the installed backend, None if it is not installed. gpus: engines run on the first.
    """
    device = _cpu(record, cpu) if record.device["kind"] == "cpu" else _gpu(record, gpus)
    return [*_graph(record, bundle), *_version(record, version), *device]


def _graph(record: Record, bundle: Bundle) -> list[str]:
    name = GRAPHS.get(record.graph, "")
    if name not in bundle.manifest.files:
        return [f"built from a {record.graph} graph, which the bundle does not hold"]
    if bundle.manifest.files[name]["sha256"] != record.graph_sha256:
        why = "exported" if record.graph == "fp32" else "calibrated"
        return [f"built from another {name} (the bundle was {why} again since)"]
    return []


def _version(record: Record, here: str | None) -> list[str]:
    title = _TITLES.get(record.backend, record.backend)
    if here is None:
        return [f"built for {title} {record.backend_version}, which is not installed here"]
    if _numbers(record.backend_version) == _numbers(here):
        return []
    return [f"built for {title} {record.backend_version}, this machine has {here}"]


def _numbers(version: str) -> tuple[int, ...]:
    """Return major, minor and patch; what follows (a build number) does not decide."""
    found = re.match(r"\d+(\.\d+){0,2}", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _cpu(record: Record, here: Cpu) -> list[str]:
    # Another name with the same instructions runs the same kernels.
    built: dict[str, Any] = dict(record.device)
    if built["arch"] != here.arch:
        return [f"built on a {built['arch']} CPU, this machine is {here.arch}"]
    lacks = [name for name in built["features"] if name not in here.features]
    more = [name for name in here.features if name not in built["features"]]
    words = []
    if lacks:
        words.append(f"built on a CPU with {', '.join(lacks)}, which this one lacks")
    if more:
        words.append(f"built on a CPU without {', '.join(more)}, which this one has")
    return words


def _gpu(record: Record, gpus: Sequence[Gpu]) -> list[str]:
    # A differing driver is no mismatch: engines hold kernels, and CUDA's drivers run those of
    # older toolkits; where one is too old, loading says so.
    if not gpus:
        return ["this machine has no NVIDIA GPU"]
    here = gpus[0]
    targets = record.device.get("compute_capabilities")
    if targets is not None:
        if here.compute_capability in targets:
            return []
        built = f"compute capabilities {', '.join(targets)}"
    else:
        if _fits(record, here):
            return []
        built = f"{record.device['name']} (compute capability {record.device['compute_capability']}"
        built += ")"
    return [f"built for {built}, this machine has {here.name} ({here.compute_capability})"]


def _fits(record: Record, here: Gpu) -> bool:
    built = _numbers(record.device["compute_capability"])
    now = _numbers(here.compute_capability)
    if record.flags.get("hardware_compatible") is True:  # Ampere and later
        return now[:1] >= built[:1]
    return built == now and record.device["name"] == here.name
