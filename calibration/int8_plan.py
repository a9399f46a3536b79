"""All that INT8 needs to know about a graph, decided once; any layer may still stay in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fgdeploy.calibration import balance, folding, linears, rounding
from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.folding import Fold, Weights
from fgdeploy.calibration.linears import Linear
from fgdeploy.calibration.observe import Observed, observe
from fgdeploy.calibration.paths import Paths
from fgdeploy.calibration.ranges import quantise
from fgdeploy.calibration.sharing import unshared
from fgdeploy.core.errors import ExportError
from fgdeploy.core.progress import Progress, no_progress

Doubles = npt.NDArray[np.float64]

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
class Int8Plan:
    """An fp32 graph and how each of its layers becomes INT8; `qdq.write` makes graphs of it.

    in_float: layers that stay in float whatever else is asked for.
    """

    model: onnx.ModelProto
    layers: Mapping[str, Layer]
    activations: tuple[Activation, ...]
    norms: Mapping[str, tuple[Doubles, Doubles]]
    in_float: frozenset[str] = frozenset()

    @property
    def int8(self) -> list[str]:
        """Return the names of the layers that are INT8, in the order of the graph."""
        return [name for name in self.layers if name not in self.in_float]

    def ranges(self) -> dict[str, Any]:
        """Return what `calibration.json` keeps of each activation."""
        return {
            item.tensor: {
                "readers": list(item.readers),
                "limit": 127 * item.balance.step,
                "step": item.balance.step,
                "strength": item.balance.strength,
                "snr_db": round(item.balance.snr_db, 2),
                "shift": item.balance.shift.tolist(),
                "scale": item.balance.scale.tolist(),
            }
            for item in self.activations
        }


def make(
    model: onnx.ModelProto,
    batches: Iterable[npt.NDArray[np.uint8]],
    settings: CalibrationSettings,
    progress: Progress = no_progress,
) -> Int8Plan:
    """Observe the graph on frames uint8 (B, S, S, 3) and decide every layer.

    progress counts activations, after the observation. Raises ExportError if the graph is
    quantised already or holds nothing that could be.
    """
    model = unshared(model)
    wiring = _Wiring.of(model)
    kept: list[npt.NDArray[np.uint8]] = []
    seen = observe(model, list(wiring.by_input), _keeping(batches, kept), settings.seed)
    total = 2 * len(wiring.by_input)
    balances: dict[str, Balance] = {}
    for x, readers in wiring.by_input.items():
        weight = np.concatenate([wiring.arrays[linear.weight] for linear in readers], axis=1)
        balances[x] = balance.choose(
            seen[x], weight, settings.range, settings.balance, settings.seed
        )
        progress(len(balances), total)
    chosen, weights = wiring.fold(balances)
    layers: dict[str, Layer] = {}
    for number, item in enumerate(chosen, start=len(balances) + 1):
        for linear in wiring.by_input[item.tensor]:
            layers[linear.name] = _layer(linear, weights, seen[item.tensor], item, settings)
        progress(number, total)
    for linear in wiring.patches:
        layers[linear.name] = _patch_layer(linear, weights, kept, settings)
    return Int8Plan(model, layers, chosen, weights.norms)


def restore(
    model: onnx.ModelProto, int8: onnx.ModelProto, balances: Mapping[str, Balance]
) -> Int8Plan:
    """Return the plan that an fp32 graph, its INT8 graph and the calibration's balances tell of.

    Layers that are in float in the INT8 graph stay so. Raises ExportError if the three do not
    belong together.
    """
    model = unshared(model)
    wiring = _Wiring.of(model)
    shapes = {x: ((readers[0].fan_in,),) * 2 for x, readers in wiring.by_input.items()}
    if {x: (one.shift.shape, one.scale.shape) for x, one in balances.items()} != shapes:
        raise ExportError("the calibration belongs to another graph; run: fgdeploy calibrate")
    chosen, weights = wiring.fold(balances)
    held = {item.name: item for item in int8.graph.initializer}
    in_float: set[str] = set()
    layers = {}
    for linear in wiring.layers:
        weight, bias = weights.weight[linear.name], weights.bias[linear.name]
        if linear.is_patch_embedding:
            weight, bias = _for_pixels(weight, bias)
        parts = [held.get(f"{linear.name}/{part}") for part in ("integers", "steps", "bias")]
        stored = [numpy_helper.to_array(part) for part in parts if part is not None]
        if len(stored) == len(parts):
            integers, steps, int8_bias = stored
            if [part.shape for part in stored] != [weight.shape, (linear.fan_out,), bias.shape]:
                raise ExportError(
                    f"the INT8 graph's {linear.name} is of another model; run: fgdeploy calibrate"
                )
            layers[linear.name] = Layer(
                linear,
                weight,
                bias,
                integers,
                steps.astype(np.float64),
                int8_bias.astype(np.float64),
                0.0,
            )
        else:
            layers[linear.name] = _unrounded(linear, weight, bias)
            in_float.add(linear.name)
    return Int8Plan(model, layers, chosen, weights.norms, frozenset(in_float))


def _unrounded(linear: Linear, weight: Doubles, bias: Doubles) -> Layer:
    """Return a layer that stays in float; its integers are of nearest rounding."""
    columns = weight.reshape(len(weight), -1).T if linear.is_patch_embedding else weight
    steps = rounding.steps_of(columns)
    integers = rounding.nearest(columns, steps)
    integers = integers.T.reshape(weight.shape) if linear.is_patch_embedding else integers
    return Layer(linear, weight, bias, integers, steps, bias, 0.0)


@dataclass(frozen=True)
class _Wiring:
    """The layers of an fp32 graph that INT8 is for, by what they read, and its constants."""

    paths: Paths
    arrays: Mapping[str, Doubles]
    layers: list[Linear]
    by_input: Mapping[str, list[Linear]]
    patches: list[Linear]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Wiring:
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
            raise ExportError("the graph is quantised already; calibrate the fp32 graph")
        paths = Paths(model.graph)
        found = linears.find(model)
        patches = [one for one in found if one.is_patch_embedding and _reads_pixels(one, paths)]
        by_input: dict[str, list[Linear]] = {}
        for linear in found:
            if not linear.is_patch_embedding:
                by_input.setdefault(linear.x, []).append(linear)
        if not by_input:
            raise ExportError("the graph has no layer that INT8 could take; export it again")
        arrays = {
            item.name: numpy_helper.to_array(item).astype(np.float64)
            for item in model.graph.initializer
            if item.data_type == onnx.TensorProto.FLOAT
        }
        layers = [*(one for readers in by_input.values() for one in readers), *patches]
        return cls(paths, arrays, layers, by_input, patches)

    def fold(self, balances: Mapping[str, Balance]) -> tuple[tuple[Activation, ...], Weights]:
        """Fold all balances; returns where each went, and the weights that come of it."""
        weights = Weights(self.layers, self.arrays, self.paths)
        chosen = []
        for x, readers in self.by_input.items():
            one, where = balances[x], Fold()
            if one.strength is not None:
                where = folding.place(x, readers, self.layers, self.paths)
            weights.fold(one, readers, where)
            chosen.append(Activation(x, tuple(linear.name for linear in readers), one, where))
        return tuple(chosen), weights


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
    kernel, bias = _for_pixels(weights.weight[linear.name], weights.bias[linear.name])
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
    layer = _rounded(
        linear,
        kernel.reshape(count, -1).T,
        bias,
        scaled,
        scaled,
        np.ones(len(scaled)),
        settings.compensate,
    )
    integers = np.ascontiguousarray(layer.integers.T).reshape(kernel.shape)
    return dataclasses.replace(layer, weight=kernel, integers=integers)


def _for_pixels(kernel: Doubles, bias: Doubles) -> tuple[Doubles, Doubles]:
    """Return the kernel and bias that do with scaled pixels what the given ones do with raw."""
    scaled = kernel / PIXEL_STEP
    return scaled, bias + PIXEL_CENTRE * PIXEL_STEP * scaled.reshape(len(kernel), -1).sum(axis=1)
