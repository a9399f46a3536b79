"""What every CPU engine makes of an export: products of its precision, patterns as one op.

EET and the dense network on four narrow blocks, exported and calibrated once each.
"""

from __future__ import annotations

import pytest
import torch

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import BuildSettings, build
from fgdeploy.engines.engine_layers import Layers
from tests.exported import Case, Exports, calibrated, narrow_backbones

BLOCKS = 4
# q, k, v, proj, fc1 and fc2 in each block; the patch embedding, the head and the packing of bits.
PRODUCTS = {"onnxruntime": 4 * BLOCKS, "openvino": 6 * BLOCKS}
backbones = pytest.fixture(scope="module", autouse=True)(narrow_backbones)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    torch.set_num_threads(1)
    exports = Exports(tmp_path_factory.mktemp("exports"))
    photos = write_moths(tmp_path_factory.mktemp("drawn"), 2, 12, size=96)
    cases = {"eet": Case("eet", ("stages=2:8,3:4",)), "dense": Case("eet", ("stages=none",))}
    return {name: calibrated(exports.of(case), photos) for name, case in cases.items()}


def _layers(bundle: Bundle, backend: str, precision: str) -> Layers:
    try:
        built = build(bundle, backend, precision, BuildSettings(batches=(1,)))
    except EngineError as error:
        missing = ("cannot compute in bf16", "INT8 is wrong on this CPU")
        if any(words in str(error) for words in missing):
            pytest.skip(str(error))
        raise
    assert built.record is not None and built.record.layers is not None
    return Layers(**built.record.layers)


@pytest.mark.parametrize("name", ["eet", "dense"])
@pytest.mark.parametrize(
    ("backend", "precision", "kind"),
    [
        ("onnxruntime", "fp32", "float32"),
        ("onnxruntime", "int8", "int8"),
        ("openvino", "fp32", "float32"),
        ("openvino", "bf16", "bfloat16"),
        ("openvino", "int8", "int8"),
    ],
)
def test_whole_patterns_are_one_op(
    bundles: dict[str, Bundle], name: str, backend: str, precision: str, kind: str
) -> None:
    layers = _layers(bundles[name], backend, precision)
    assert (layers.fused["gelu"], layers.fused["layer_norm"]) == (BLOCKS, 2 * BLOCKS + 1)
    assert layers.fused["attention"] == BLOCKS
    found, whole = layers.products[kind], sum(layers.products.values())
    # The CLS row's query, proj and MLP in the last block, the head and the packing stay in float.
    least = PRODUCTS[backend] - (5 if kind == "int8" else 0)
    assert least <= found and (kind == "int8" or found == whole), layers.words()
