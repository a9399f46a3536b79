"""Time stacks of blocks in a process of its own, as two engines in one fight over cores."""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fgdeploy.bundle import Bundle, Manifest, open_bundle
from fgdeploy.core.timing import time_calls
from fgdeploy.engines import BuildSettings
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.base import EngineSource, GraphEngine
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.proof.own_process import answer, run_apart
from fgdeploy.tuning import stack_graph
from fgdeploy.tuning.staircase import Stair

_SHALLOW, _DEEP = 1, 5
_SECONDS, _LEAST, _WARM_UP = 0.15, 5, 2


@dataclass(frozen=True)
class Backbone:
    """A ViT whose blocks are timed."""

    shape: Geometry
    heads: int

    @property
    def rows(self) -> int:
        """Return the token rows of the dense model."""
        return self.shape.patches + self.shape.prefix_tokens


def measure(
    bundle: Bundle,
    engine: str,
    backbone: Backbone,
    points: Mapping[int, Sequence[int]],
    threads: int | None = None,
) -> dict[int, Stair]:
    """Return the stairs of an engine BACKEND:PRECISION by batch; points: rows by batch.

    bundle: any of the backbone's, for what engines ask of a manifest. Raises EngineError.
    """
    wanted = {
        "bundle": str(bundle.path),
        "engine": engine,
        "shape": dataclasses.asdict(backbone.shape),
        "heads": backbone.heads,
        "points": [[batch, count] for batch, counts in points.items() for count in counts],
        "threads": threads,
    }
    times = iter(run_apart("fgdeploy.tuning.stack_timing", wanted, threads))
    found = {}
    for batch, counts in points.items():
        parts = [split(*next(times)) for _ in counts]
        found[batch] = Stair.smoothed(counts, *zip(*parts, strict=True))
    return found


def split(shallow_ms: float, deep_ms: float, feeds_ms: float) -> tuple[float, float]:
    """Return the milliseconds of a block's `attend` and `feed`, never below 0.

    shallow, deep: stacks of 1 and 5 blocks, whose difference is 4 blocks; feeds: of 5 `feed`.
    """
    block = max(0.0, deep_ms - shallow_ms) / (_DEEP - _SHALLOW)
    beside = max(0.0, shallow_ms - _SHALLOW * block)
    feed = min(block, max(0.0, feeds_ms - beside) / _DEEP)
    return block - feed, feed


def _timed(wanted: dict[str, Any]) -> list[list[float]]:
    manifest = dataclasses.replace(
        open_bundle(wanted["bundle"]).manifest,
        image_size=stack_graph.SIDE,
        bits=stack_graph.BITS,
        outputs={},
    )
    backend, _, precision = wanted["engine"].partition(":")
    kind = engine_type(backend)
    kind.check_arithmetic(precision)
    grid = tuple(wanted["shape"].pop("grid"))
    backbone = Backbone(Geometry(grid=grid, **wanted["shape"]), wanted["heads"])
    found = []
    for batch, rows in wanted["points"]:
        with tempfile.TemporaryDirectory() as folder:
            engines = [
                _engine(kind, precision, manifest, graph, Path(folder), batch, wanted["threads"])
                for graph in _graphs(backbone, rows, kind.graphs[precision][0])
            ]
            frames = np.random.default_rng(0).integers(0, 256, (batch, 8, 8, 3), np.uint8)
            calls = [functools.partial(engine.run, frames) for engine in engines]
            times = time_calls(*calls, seconds=_SECONDS, least=_LEAST, warm_up=_WARM_UP)
            for engine in engines:
                engine.close()
        found.append([min(one) for one in times])
    return found


def _graphs(backbone: Backbone, rows: int, key: str) -> list[onnx.ModelProto]:
    """Return the shallow, the deep and the feeding stack as a bundle's graph `key` would be."""
    int8, unsigned = key.startswith("int8"), key.endswith("u8")
    made = [
        stack_graph.graph(backbone.shape, backbone.heads, rows, depth, feed, int8, unsigned)
        for depth, feed in ((_SHALLOW, False), (_DEEP, False), (_DEEP, True))
    ]
    if not key.endswith("fp16"):
        return made
    from fgdeploy.calibration.half import to_half

    return [to_half(one) for one in made]


def _engine(
    kind: type[GraphEngine],
    precision: str,
    manifest: Manifest,
    graph: onnx.ModelProto,
    folder: Path,
    batch: int,
    threads: int | None,
) -> GraphEngine:
    number = len(list(folder.iterdir()))
    path = folder / f"{number}.onnx"
    onnx.save(graph, path)
    if kind.portable:
        return kind(manifest, EngineSource(path, precision, False, threads, (batch,)))
    target = folder / f"{number}-{kind.file_name}"
    kind.compile(path, precision, manifest, target, BuildSettings((batch,), threads=threads))
    return kind(manifest, EngineSource(target, precision, True, threads, (batch,)))


if __name__ == "__main__":
    sys.exit(answer(_timed))
