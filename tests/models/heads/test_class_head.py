"""The class head that lies in a state dict."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.models.heads.class_head import class_head


@pytest.mark.parametrize("bias", [True, False])
def test_it_gives_their_logits(bias: bool) -> None:
    state = {"head.weight": torch.randn(5, 8), "head.bias": torch.randn(5)}
    shift = state["head.bias"] if bias else torch.zeros(5)
    if not bias:
        del state["head.bias"]
    head = class_head(state, 8)
    assert head is not None
    x = torch.randn(3, 8)
    torch.testing.assert_close(head(x), x @ state["head.weight"].T + shift)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"head.weight": torch.ones(5, 7)},
        {"head.weight": torch.ones(5, 8, 1)},
        {"head.weight": torch.ones(5, 8), "head.bias": torch.ones(4)},
        {"head.bias": torch.ones(5)},
    ],
)
def test_what_is_no_class_head_of_this_embedding(state: dict[str, torch.Tensor]) -> None:
    assert class_head(state, 8) is None
