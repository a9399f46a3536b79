"""Is an exported graph cheaper than the dense ViT? Both are timed in ONNX Runtime, in turn."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdeploy.bundle import Bundle
from fgdeploy.core.timing import time_calls
from fgdeploy.engines import open_engine
from fgdeploy.engines.onnxruntime import session_options
from fgdeploy.export import dense_vit
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.methods import registry

BATCHES = (1, 8)
# A dense call of one image that takes longer leaves larger batches out: eight take seconds.
_PATIENCE_MS = 60.0
_SECONDS, _LEAST, _WARM_UP = 0.5, 3, 1


@dataclass(frozen=True)
class AgainstDense:
    """Medians of calls with `batch` frames, in milliseconds; times: dense over exported."""

    batch: int
    dense_ms: float
    exported_ms: float

    @property
    def times(self) -> float:
        """Return how many times as fast as the dense ViT the exported graph is."""
        return self.dense_ms / self.exported_ms


def measure(bundle: Bundle, patience_ms: float = _PATIENCE_MS) -> list[AgainstDense]:
    """Return the pace at batch 1, and at 8 unless the dense ViT takes over `patience_ms` for one.

    Takes up to about five seconds. Raises EngineError without ONNX Runtime.
    """
    manifest = bundle.manifest
    size = manifest.image_size
    method = registry.get(manifest.method)
    variant = method.varied(method.options.from_json(manifest.options))
    vit = backbones.create(manifest.backbone, size, variant=variant)
    dense = _session(backbones.geometry(vit), vit.blocks[0].attn.num_heads, size)
    frames = np.random.default_rng(0).integers(0, 256, (max(BATCHES), size, size, 3), np.uint8)
    found: list[AgainstDense] = []
    with open_engine(bundle, "onnxruntime") as engine:
        for batch in BATCHES:
            if found and found[0].dense_ms > patience_ms:
                break
            given = frames[:batch]
            calls = (
                functools.partial(dense.run, None, {"frames": given}),
                functools.partial(engine.run, given),
            )
            taken = time_calls(*calls, seconds=_SECONDS, least=_LEAST, warm_up=_WARM_UP)
            found.append(AgainstDense(batch, *map(statistics.median, taken)))
    return found


def _session(shape: backbones.Geometry, heads: int, image_size: int) -> Any:
    import onnxruntime

    model = dense_vit.graph(shape, heads, image_size).SerializeToString()
    return onnxruntime.InferenceSession(
        model, session_options(), providers=["CPUExecutionProvider"]
    )
