"""The trained head: a hash on class logits, folded exactly, read from checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.heads.base import Features, NoHead
from fgdeploy.models.heads.hash import ClassHashHead, FoldedHead
from fgdeploy.models.heads.projection import ProjectionHead
from fgdeploy.models.simplify import simplified
from tests.checks import refused


def test_folded_class_head_is_exact() -> None:
    head = ClassHashHead(24, 10, 13).double().requires_grad_(False)
    embedding = torch.randn(5, 24, dtype=torch.float64)
    found = head(Features(embedding))
    assert list(found) == ["hash", "logits"]
    assert found["logits"].shape == (5, 10)
    by_hand = (embedding @ head.head.weight.T + head.head.bias) @ head.head_hash.weight.T
    assert torch.allclose(found["hash"], by_hand + head.head_hash.bias, rtol=0, atol=1e-13)
    folded = simplified(head, frozenset({"fold-hash-head"}))
    assert isinstance(folded, FoldedHead)
    short = folded(Features(embedding))
    assert list(short) == ["hash"]
    assert torch.allclose(short["hash"], found["hash"], rtol=0, atol=1e-13)
    assert simplified(head, frozenset()).folded() is not head  # a copy, not folded
    assert isinstance(simplified(head, frozenset()), ClassHashHead)


def test_what_it_says_of_itself() -> None:
    head = ClassHashHead(24, 10, 13)
    assert (head.bits, head.classes) == (13, 10)
    assert head.facts() == {"kind": "trained", "classes": 10}
    assert head.files() == {}
    assert set(head.parts) == {name.split(".")[0] for name in head.state_dict()}
    assert (NoHead().bits, NoHead().classes) == (0, 0)
    assert NoHead()(Features(torch.ones(1, 3))) == {}


def test_heads_start_small_and_without_bias() -> None:
    """As the authors start them: truncated normal of deviation 0.02, bias 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = ClassHashHead.fresh(64, 200, 64)
    for linear in (head.head, head.head_hash):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(linear.weight.mean().item()) < 1e-3
        assert (linear.bias == 0).all()
    with pytest.raises(NotImplementedError, match="ProjectionHead is fitted, not trained"):
        ProjectionHead.fresh(64, 200, 64)


@pytest.fixture
def state() -> dict[str, Any]:
    """A checkpoint of a head for width 6, 5 classes and 24 bits, with a backbone's tensor."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"head.weight": (5, 6), "head.bias": (5,), "head_hash.weight": (24, 5)}
    shapes |= {"head_hash.bias": (24,), "norm.weight": (6,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_trained_head_is_read(state: dict[str, Any]) -> None:
    for bits in (None, 24):
        head = ClassHashHead.from_state(state, 6, bits, "c.pth")
        assert isinstance(head, ClassHashHead)
        assert (head.bits, head.classes) == (24, 5)
        assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_no_head_is_none() -> None:
    assert ClassHashHead.from_state({}, 6, None, "c.pth") is None
    assert ClassHashHead.from_state({"head.weight": torch.ones(5, 6)}, 6, None, "c.pth") is None
    assert ProjectionHead.from_state({"head_hash.weight": torch.ones(5, 6)}, 6, None, "c") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("head_hash.bias"), "c.pth lacks head_hash.bias, which the trained head"),
        (lambda s: s.pop("head.weight"), "c.pth lacks head.weight, which"),
        (
            lambda s: s.update({"head_hash.0.weight": s.pop("head_hash.weight")}),
            "has head_hash.(bias|0.weight) but no head_hash.weight, so its hash head is of another",
        ),
        (lambda s: s.update({"head.extra": torch.ones(3)}), "has head.extra beside its class and"),
        (lambda s: s.update({"head_dist.bias": torch.ones(3)}), "has head_dist.bias beside"),
        (
            lambda s: s.update({"head_hash.weight": torch.ones(24, 9)}),
            "head_hash takes 9 inputs, but head gives 5 classes",
        ),
        (
            lambda s: s.update({"head_hash.weight": torch.ones(24)}),
            r"expected matrices head.weight and head_hash.weight, got \(5, 6\) and \(24,\)",
        ),
        (lambda s: s.update({"head.weight": torch.ones(5, 7)}), r"misshapen head.weight \(5, 7\)"),
        (lambda s: s.update({"head.bias": torch.full((5,), torch.nan)}), "head.bias holds NaN"),
    ],
)
def test_heads_of_another_form(state: dict[str, Any], change: Any, words: str) -> None:
    change(state)
    with refused(CheckpointError, words):
        ClassHashHead.from_state(state, 6, None, "c.pth")


def test_bits_that_are_not_those_of_the_head(state: dict[str, Any]) -> None:
    with refused(CheckpointError, "--bits 32 does not match c.pth, whose hash head has 24 bits"):
        ClassHashHead.from_state(state, 6, 32, "c.pth")
    state |= {"head_hash.weight": torch.ones(4, 5), "head_hash.bias": torch.ones(4)}
    with refused(UsageError, "8 to 512 bits, not 4"):
        ClassHashHead.from_state(state, 6, None, "c.pth")
