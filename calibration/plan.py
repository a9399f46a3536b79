"""All that INT8 needs to know about a graph, decided once; any layer may still stay in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fgdeploy.calibration import balance, folding, linears, rounding
from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.folding import Fold, Weights
from fgdeploy.calibration.linears import Linear
from fgdeploy.calibration.observe import Observed, observe
from fgdeploy.calibration.paths import Paths
from fgdeploy.calibration.ranges import quantise
from fgdeploy.calibration.settings import CalibrationSettings
from fgdeploy.errors import ExportError

Doubles = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

# Pixels 0..255 become -1..127/128 exactly, in steps of 1/128: INT8 loses nothing of them.
PIXEL_CENTRE, PIXEL_STEP = 128.0, 1 / 128
_PATCHES_PER_IMAGE = 16


@dataclass(frozen=True)
class Layer:
    """One layer, both ways: float weight (K, N) or (N, C, P, P) and bias after folding, and INT8.

    integers * steps stand for the weight, int8_bias for the bias, corrected for what rounding does
    on average. snr_db: signal to noise of the INT8 layer's output on the observed rows.
    """

    linear: Linear
    weight: Doubles
    bias: Doubles
    integers: npt.NDArray[np.int8]
    steps: Doubles
    int8_bias: Doubles
    snr_db: float


@dataclass(frozen=True)
class Activation:
    """The input of one or several layers, how it is balanced and where that folds."""

    tensor: str
    readers: tuple[str, ...]
    balance: Balance
    fold: Fold


@dataclass(frozen=True)
class Plan:
    """An fp32 graph and how each of its layers becomes INT8; `qdq.write` makes graphs of it."""

    model: onnx.ModelProto
    layers: Mapping[str, Layer]
    activations: tuple[Activation, ...]
    norms: Mapping[str, tuple[Doubles, Doubles]]

    def ranges(self) -> dict[str, Any]:
        """Return what `calibration.json` keeps: per activation, its step and how it was found."""
        return {
            "+".join(item.readers): {
                "step": item.balance.step,
                "limit": 127 * item.balance.step,
                "strength": item.balance.strength,
                "snr_db": [round(self.layers[name].snr_db, 2) for name in item.readers],
            }
            for item in self.activations
        }


def make(
    model: onnx.ModelProto,
    batches: Iterable[npt.NDArray[np.uint8]],
    settings: CalibrationSettings,
    progress: Progress = lambda done, total: None,
) -> Plan:
    """Observe the graph on frames uint8 (B, S, S, 3) and decide every layer.

    progress counts activations, after the observation. Raises ExportError if the graph is
    quantised already or holds nothing that could be.
    """
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ExportError("the graph is quantised already; calibrate the fp32 graph")
    found = linears.find(model)
    if not found:
        raise ExportError("the graph has no layer that INT8 could take; export it again")
    paths = Paths(model.graph)
    arrays = {
        item.name: numpy_helper.to_array(item).astype(np.float64)
        for item in model.graph.initializer
        if item.data_type == onnx.TensorProto.FLOAT
    }
    by_input: dict[str, list[Linear]] = {}
    patches = [linear for linear in found if linear.is_patch_embedding]
    for linear in found:
        if not linear.is_patch_embedding:
            by_input.setdefault(linear.x, []).append(linear)
    kept: list[npt.NDArray[np.uint8]] = []
    seen = observe(model, list(by_input), _keeping(batches, kept), settings.seed)
    weights = Weights(found, arrays, paths)
    chosen = []
    for x, readers in by_input.items():
        side_by_side = np.concatenate([weights.weight[linear.name] for linear in readers], axis=1)
        one = balance.choose(
            seen[x], side_by_side, settings.method, settings.balance, settings.seed
        )
        where = folding.place(x, readers, found, paths) if settings.balance else Fold()
        chosen.append(Activation(x, tuple(linear.name for linear in readers), one, where))
        progress(len(chosen), 2 * len(by_input))
    for item in chosen:
        readers = by_input[item.tensor]
        weights.fold(item.balance, readers, item.fold)
    layers: dict[str, Layer] = {}
    for number, item in enumerate(chosen, start=1):
        for linear in by_input[item.tensor]:
            layers[linear.name] = _layer(linear, weights, seen[item.tensor], item, settings)
        progress(len(by_input) + number, 2 * len(by_input))
    for linear in patches:
        if _reads_pixels(linear, paths):
            layers[linear.name] = _patch_layer(linear, weights, kept, settings)
    return Plan(model, layers, tuple(chosen), weights.norms)


def _keeping(
    batches: Iterable[npt.NDArray[np.uint8]], kept: list[npt.NDArray[np.uint8]]
) -> Iterable[npt.NDArray[np.uint8]]:
    for frames in batches:
        if sum(map(len, kept)) < 64:
            kept.append(frames)
        yield frames


def _layer(
    linear: Linear,
    weights: Weights,
    seen: Observed,
    item: Activation,
    settings: CalibrationSettings,
) -> Layer:
    rows = item.balance.apply(seen.rows)
    return _rounded(
        linear,
        weights.weight[linear.name],
        weights.bias[linear.name],
        rows,
        quantise(rows, item.balance.step),
        seen.weights,
        settings.compensate,
    )


def _rounded(
    linear: Linear,
    weight: Doubles,
    bias: Doubles,
    rows: Doubles,
    rounded_rows: Doubles,
    row_weights: Doubles,
    compensate: bool,
) -> Layer:
    """Return a layer of weight (K, N) in INT8, which sees rows (R, K), exact and rounded."""
    steps = rounding.steps_of(weight)
    loud = rounded_rows * np.sqrt(row_weights)[:, None]
    integers = (
        rounding.compensated(weight, steps, loud) if compensate else rounding.nearest(weight, steps)
    )
    wanted = rows @ weight
    error = rounded_rows @ (integers * steps) - wanted
    drift = np.average(error, axis=0, weights=row_weights) if compensate else 0.0
    noise = max(float(((error - drift) ** 2).mean()), 1e-30)
    snr = 10 * np.log10(max(float(wanted.var(axis=0).mean()), 1e-30) / noise)
    return Layer(linear, weight, bias, integers, steps, bias - drift, float(snr))


def _reads_pixels(linear: Linear, paths: Paths) -> bool:
    """Say whether a convolution reads frames as they are: cast, transposed, nothing else."""
    cast = paths.follow_back(linear.x, ("Transpose", "Cast"))
    return cast is not None and cast.input[0] not in paths.producers


def _patch_layer(
    linear: Linear,
    weights: Weights,
    frames: list[npt.NDArray[np.uint8]],
    settings: CalibrationSettings,
) -> Layer:
    """Return the patch embedding in INT8, for pixels that are centred and scaled to -1..127/128."""
    kernel = weights.weight[linear.name]
    count, channels, side, _ = kernel.shape
    pixels = np.concatenate(frames)
    images, size = pixels.shape[:2]
    grid = size // side
    cut = pixels[:, : grid * side, : grid * side].reshape(images, grid, side, grid, side, channels)
    rows = cut.transpose(0, 1, 3, 5, 2, 4).reshape(images * grid * grid, -1)
    rng = np.random.default_rng(settings.seed)
    most = min(len(rows), _PATCHES_PER_IMAGE * images)
    rows = rows[rng.choice(len(rows), most, replace=False)].astype(np.float64)
    scaled = (rows - PIXEL_CENTRE) * PIXEL_STEP
    flat = kernel.reshape(count, -1).T / PIXEL_STEP
    bias = weights.bias[linear.name] + PIXEL_CENTRE * PIXEL_STEP * flat.sum(axis=0)
    layer = _rounded(linear, flat, bias, scaled, scaled, np.ones(len(scaled)), settings.compensate)
    return Layer(
        linear,
        flat.T.reshape(kernel.shape),
        bias,
        np.ascontiguousarray(layer.integers.T).reshape(kernel.shape),
        layer.steps,
        layer.int8_bias,
        layer.snr_db,
    )
