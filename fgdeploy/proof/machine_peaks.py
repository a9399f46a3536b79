"""The most that this machine does: products of big matrices by engine and precision, and memory."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.core.errors import FgdeployError, MissingDependency
from fgdeploy.engines.backends import engine_type
from fgdeploy.proof import bench, plain_timm
from fgdeploy.proof.bare_graph import OPENING
from fgdeploy.proof.contenders import Contender, Prepare

# [rows, inner] @ [inner, columns]: wide enough that writing the product costs little beside it.
_ROWS, _INNER, _COLUMNS = 1024, 4096, 1024
_GPU = 4  # times as large on each side on a GPU
_COPIED = 64 << 20  # bytes, more than caches near a core hold
_ROUNDS, _SECONDS = 2, 0.3
NUMPY, TORCH, MEMORY = "numpy:fp32", "torch:fp32", "memory"


@dataclass(frozen=True)
class Peaks:
    """What was reached at best: MACs per second by engine, and bytes copied per second.

    A copied byte is one read and one written. failed: why a peak is not known.
    """

    macs_per_s: Mapping[str, float]
    bytes_per_s: float | None
    failed: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "gmacs_per_s": {name: round(rate / 1e9, 2) for name, rate in self.macs_per_s.items()},
            "memory_gb_per_s": self.bytes_per_s and round(self.bytes_per_s / 1e9, 2),
            "failed": dict(self.failed),
        }


def measure_peaks(engines: Iterable[str], threads: int | None, folder: Path) -> Peaks:
    """Measure NumPy's product, that of each engine BACKEND:PRECISION, and memory, each apart.

    folder: where the graphs of the products are written. An engine whose graph cannot be made or
    run is left out, with the reason.
    """
    failed: dict[str, str] = {}
    probes = [Contender(NUMPY, "product", "", (_ROWS,), NUMPY, macs=_INNER * _COLUMNS)]
    probes.append(Contender(MEMORY, "product", "", (1,), MEMORY))
    for engine in dict.fromkeys(engines):
        if engine in LIBRARIES:
            probes.append(Contender(engine, "product", "", (_ROWS,), engine, macs=probes[0].macs))
            continue
        try:
            probes.append(_probe(engine, folder))
        except FgdeployError as error:
            failed[engine] = str(error)
    race = bench.race(list(dict.fromkeys(probes)), threads, _ROUNDS, _SECONDS)
    rates = {
        one.contender.name: 1e3 * one.contender.macs * calls.batch / min(calls.ms)
        for one in race.measured
        for calls in one.calls
        if one.contender.macs
    }
    copies = [one for one in race.measured if one.contender.name == MEMORY]
    speed = 1e3 * 2 * _COPIED / min(copies[0].calls[0].ms) if copies else None
    return Peaks(rates, speed, {**failed, **race.failed})


def _probe(engine: str, folder: Path) -> Contender:
    backend, _, precision = engine.partition(":")
    if backend not in OPENING:
        raise FgdeployError(f"{backend} opens no ONNX file by itself")
    times = _GPU if backend.endswith("cuda") else 1
    path = folder / f"product-{engine.replace(':', '-')}.onnx"
    rows, inner, columns = _ROWS * times, _INNER * times, _COLUMNS * times
    kind = "fp32"
    if precision == "int8":
        kind = engine_type(backend).graphs[precision][0]
    elif precision == "fp16" and times > 1:
        kind = precision
    write_product(path, kind, rows, inner, columns)
    return Contender(engine, "graph", str(path), (rows,), engine, macs=inner * columns)


def write_product(path: Path, kind: str, rows: int, inner: int, columns: int) -> None:
    """Write a graph of one product with fixed weights.

    kind: fp32, fp16, int8, or int8-u8 with unsigned [rows, inner], as in a bundle. Raises
    MissingDependency without the onnx package.
    """
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "onnx", "calibrate", "measuring the peak") from None
    chooser = np.random.default_rng(0)
    full, element, zero = {
        "fp32": (np.float32, TensorProto.FLOAT, None),
        "fp16": (np.float16, TensorProto.FLOAT16, None),
        "int8": (np.float32, TensorProto.FLOAT, np.int8(0)),
        "int8-u8": (np.float32, TensorProto.FLOAT, np.uint8(128)),
    }[kind]
    weights: dict[str, Any] = {}
    nodes = []
    left, right = "x", "w"
    if zero is not None:
        weights["w"] = chooser.integers(-127, 128, (inner, columns)).astype(np.int8)
        weights |= {"x_step": np.float32(1 / 255), "x_zero": zero}
        weights |= {"w_step": np.full(columns, 1 / 127, np.float32)}
        weights |= {"w_zero": np.zeros(columns, np.int8)}
        step = ["x_step", "x_zero"]
        nodes.append(helper.make_node("QuantizeLinear", ["x", *step], ["xq"]))
        nodes.append(helper.make_node("DequantizeLinear", ["xq", *step], ["xf"]))
        nodes.append(
            helper.make_node("DequantizeLinear", ["w", "w_step", "w_zero"], ["wf"], axis=1)
        )
        left, right = "xf", "wf"
    else:
        weights["w"] = chooser.random((inner, columns), np.float32).astype(full)
    nodes.append(helper.make_node("MatMul", [left, right], ["y"]))
    output = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", element, [rows, inner])],
        [helper.make_tensor_value_info("y", output, [rows, columns])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )


def _numpy_product(threads: int) -> Prepare:
    chooser = np.random.default_rng(0)
    left = chooser.random((_ROWS, _INNER), np.float32)
    right = chooser.random((_INNER, _COLUMNS), np.float32)
    return lambda _: functools.partial(np.matmul, left, right)


def _torch_product(threads: int) -> Prepare:
    return plain_timm.torch_product(_ROWS, _INNER, _COLUMNS, threads)


def _copying(threads: int) -> Prepare:
    """Return what copies an array, each thread its part; NumPy lets go of the lock meanwhile."""
    source, target = (np.ones(_COPIED // 8) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))

    def call() -> None:
        workers = [threading.Thread(target=np.copyto, args=part) for part in parts[1:]]
        for worker in workers:
            worker.start()
        np.copyto(*parts[0])
        for worker in workers:
            worker.join()

    return lambda _: call


LIBRARIES: dict[str, Callable[[int], Prepare]] = {
    NUMPY: _numpy_product,
    TORCH: _torch_product,
    MEMORY: _copying,
}
