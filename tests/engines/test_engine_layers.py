"""What an engine computes, in words, and which precision that is not."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import EngineError
from fgdeploy.engines.engine_layers import Layers, is_valid
from tests.checks import refused


def test_words() -> None:
    layers = Layers({"int8": 46, "float32": 2}, {"attention": 12, "gelu": 0})
    assert layers.words() == "2 products in float32, 46 products in int8; 12 attention"
    assert is_valid(layers.to_json())


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"), ("int8", "int8")],
)
def test_a_build_that_fell_to_another_type(precision: str, kind: str) -> None:
    Layers({kind: 1}).check("tensorrt", precision)
    with refused(
        EngineError, f"tensorrt compiled no {precision} engine.*in {kind}, got no products"
    ):
        Layers({}).check("tensorrt", precision)
