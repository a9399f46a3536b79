"""An ONNX file alone, with random inputs: what its graph takes, without a bundle around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle.onnx_scan import GraphEnd, graph_inputs
from fgdeploy.core.errors import BundleError, EngineError, UsageError
from fgdeploy.core.text import shown
from fgdeploy.engines.backends import engine_type

Feeds = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Feeds], object]
# From a batch size's feeds, whose shapes are final, to what runs them.
Start = Callable[[Feeds], Run]

_TYPES: dict[int, type[Any]] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}
_WIDE = (np.int32, np.int64)  # types of positions and tokens, which the graph may look up


def read_inputs(path: Path) -> list[GraphEnd]:
    """Return the inputs of a graph that random numbers can stand for, once they are seen to.

    The first size of each may be open, or several sizes of the first's name: they are the batch.
    Raises BundleError for what is no ONNX file, UsageError for other inputs.
    """
    try:
        inputs = graph_inputs(path)
    except OSError as error:
        raise BundleError(f"{path} is not readable ({error.strerror}); check its name") from None
    if not inputs:
        raise UsageError(f"{path} takes no input, so there is no batch to time; give another graph")
    for one in inputs:
        if one.type not in _TYPES:
            raise UsageError(
                f"{path}: the input {shown(one.name)} is of ONNX type {one.type}, for which there "
                "are no random numbers; give a graph with inputs of numbers"
            )
        if one.shape is None:
            raise UsageError(
                f"{path}: the input {shown(one.name)} has no shape; export it with its sizes"
            )
        for place, side in enumerate(one.shape):
            if place and not isinstance(side, int) and (not side or side != _batch_name(one)):
                raise UsageError(
                    f"{path}: the input {shown(one.name)} has an open size "
                    f"{shown(side or '?')} at place {place + 1}; only the first, the batch, may "
                    "be open: export it with fixed sizes"
                )
    return inputs


def opened(source: str, engine: str, threads: int | None) -> Callable[[int], Callable[[], object]]:
    """Open an ONNX file in BACKEND:PRECISION; return what makes a call of a batch size.

    Raises EngineError for a backend that opens no graph by itself, and MissingDependency. What is
    returned raises EngineError for a batch that the graph's fixed sizes do not allow.
    """
    path, (backend, _, precision) = Path(source), engine.partition(":")
    engine_type(backend)  # says what is missing
    if backend not in _STARTS:
        raise EngineError(
            f"{backend} opens no ONNX file by itself; build an engine with: fgdeploy build-engine"
        )
    inputs = read_inputs(path)
    start = _STARTS[backend](path, precision or "fp32", threads)

    def prepare(batch: int) -> Callable[[], object]:
        feeds = random_feeds(path, inputs, batch)
        run = start(feeds)
        return lambda: run(feeds)

    return prepare


def random_feeds(path: Path, inputs: list[GraphEnd], batch: int) -> Feeds:
    """Return seeded random arrays by name: floats 0 to 1, bytes of the whole range, indexes 0 or 1.

    Raises EngineError where the first size is fixed and another.
    """
    chooser = np.random.default_rng(0)
    feeds: dict[str, npt.NDArray[Any]] = {}
    for one in inputs:
        sides = one.shape or ()
        if sides and isinstance(sides[0], int) and sides[0] != batch:
            raise EngineError(
                f"{path.name}: the input {shown(one.name)} has the fixed batch {sides[0]}, got "
                f"{batch}; run with --batch {sides[0]}"
            )
        shape = tuple(side if isinstance(side, int) else batch for side in sides)
        kind = _TYPES[one.type]
        if np.issubdtype(kind, np.floating):
            feeds[one.name] = chooser.random(shape, np.float32).astype(kind)
        else:
            info = None if kind is np.bool_ or kind in _WIDE else np.iinfo(kind)
            low, high = (0, 2) if info is None else (info.min, int(info.max) + 1)
            feeds[one.name] = chooser.integers(low, high, shape).astype(kind)
    return feeds


def _batch_name(one: GraphEnd) -> str:
    first = one.shape[0] if one.shape else ""
    return first if isinstance(first, str) else ""


def _onnxruntime(path: Path, precision: str, threads: int | None) -> Start:
    return _session(path, threads, "CPUExecutionProvider")


def _onnxruntime_cuda(path: Path, precision: str, threads: int | None) -> Start:
    return _session(path, threads, "CUDAExecutionProvider")


def _session(path: Path, threads: int | None, provider: str) -> Start:
    import onnxruntime

    from fgdeploy.engines.onnxruntime import session_options

    session = onnxruntime.InferenceSession(path, session_options(threads), providers=[provider])
    if session.get_providers()[0] != provider:
        raise EngineError(f"ONNX Runtime cannot start its {provider} here; see: fgdeploy doctor")
    return lambda feeds: lambda given: session.run(None, dict(given))


def _openvino(path: Path, precision: str, threads: int | None) -> Start:
    from fgdeploy.engines import ov_core
    from fgdeploy.engines.openvino import cpu_settings

    core = ov_core.make()
    settings = cpu_settings(core, precision, threads)

    def start(feeds: Feeds) -> Run:
        model = core.read_model(path)
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda given: request.infer(dict(given))

    return start


_STARTS: dict[str, Callable[[Path, str, int | None], Start]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "onnxruntime-cuda": _onnxruntime_cuda,
}
OPENING = tuple(_STARTS)  # backends that open an ONNX file by themselves
