"""A block in pieces against timm's own, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdeploy.models.backbone import blocks
from tests.models.samples import BACKBONES, randomised, size_of


@pytest.fixture(scope="module", params=["test_vit", *BACKBONES[1:]])
def block(request: pytest.FixtureRequest) -> Any:
    return randomised(request.param, size_of(request.param)).blocks[1]


def _rows(block: Any, count: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    width = block.norm1.weight.shape[0]
    return torch.randn(2, count, width, generator=generator, dtype=torch.float64)


def _bias(count: int = 9, rows: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, rows, count, generator=generator, dtype=torch.float64)


def test_the_pieces_make_timm_s_block(block: Any) -> None:
    x = _rows(block)
    assert (blocks.complete(block, blocks.attend(block, x)) - block(x)).abs().max() < 1e-12


@pytest.mark.parametrize("rows", [None, 1, 9])
def test_the_cls_row_alone_is_that_of_the_whole_block(block: Any, rows: int | None) -> None:
    x = _rows(block)
    bias = None if rows is None else _bias(rows=rows)
    whole = blocks.complete(block, blocks.attend(block, x, bias))
    alone = blocks.run_cls_only(block, x, bias)
    assert alone.shape == (2, 1, x.shape[2])
    assert (alone - whole[:, :1]).abs().max() < 1e-12


@pytest.mark.parametrize("biased", [False, True])
def test_attention_by_hand(block: Any, biased: bool) -> None:
    x = _rows(block)
    bias = _bias() if biased else None
    seen = blocks.attend(block, x, bias)
    products = torch.einsum("bhqd,bhkd->bhqk", seen.q, seen.k) * seen.q.shape[-1] ** -0.5
    if bias is not None:
        products = products + bias
    expected = products.exp() / products.exp().sum(dim=-1, keepdim=True)
    assert (seen.full_attention() - expected).abs().max() < 1e-13
    assert (seen.cls_attention() - expected[:, :, 0]).abs().max() < 1e-13
    assert (seen.out_by_head - expected @ seen.v).abs().max() < 1e-12
    flat = seen.out_by_head.transpose(1, 2).flatten(2)
    assert torch.equal(flat, seen.out)


def test_proj_and_mlp_work_row_by_row(block: Any) -> None:
    seen = blocks.attend(block, _rows(block))
    whole = blocks.complete(block, seen)
    rows = torch.tensor([[3, 0, 5], [1, 1, 7]])
    x, out = (blocks.take_rows(part, rows, 1) for part in (seen.x, seen.out))
    some = blocks.feed_forward(block, blocks.merge(block, x, out))
    assert (some - blocks.take_rows(whole, rows, 1)).abs().max() < 1e-12


def test_rows_are_taken_behind_the_prefix_and_before_the_suffix() -> None:
    x = torch.arange(7.0).view(1, 7, 1).expand(2, 7, 2)
    rows = torch.tensor([[2, 0], [1, 2]])

    def taken(prefix: int, suffix: int) -> list[list[float]]:
        found = blocks.take_rows(x, rows, prefix, suffix)
        assert torch.equal(found[..., 0], found[..., 1])
        return found[..., 0].tolist()

    assert taken(1, 0) == [[0, 3, 1], [0, 2, 3]]
    assert taken(2, 2) == [[0, 1, 4, 2, 5, 6], [0, 1, 3, 4, 5, 6]]
    assert taken(0, 1) == [[2, 0, 6], [1, 2, 6]]


def test_exported_attention_is_the_same(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, bias = _rows(block), _bias()
    plain = [blocks.attend(block, x, given).out for given in (None, bias)]
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    written = [blocks.attend(block, x, given).out for given in (None, bias)]
    for one, two in zip(plain, written, strict=True):
        assert (one - two).abs().max() < 1e-13


def _learned(block: Any, x: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Return q, k and v's attention and the gradients of its sum of squares, in float64."""
    given = [part.detach().to(x.dtype).requires_grad_() for part in blocks.project(block, x)]
    out = blocks.attention(block, *given, None if bias is None else bias.to(x.dtype))
    out.double().square().sum().backward()
    return [out.detach().double(), *(part.grad.double() for part in given if part.grad is not None)]


@pytest.mark.parametrize("biased", [False, True])
def test_attention_learns_in_bfloat16_as_in_float64(block: Any, biased: bool) -> None:
    bias = _bias() if biased else None
    exact = _learned(block, _rows(block), bias)
    rounded = _learned(copy.deepcopy(block).bfloat16(), _rows(block).bfloat16(), bias)
    assert len(exact) == len(rounded) == 4
    for one, two in zip(exact, rounded, strict=True):
        assert (one - two).norm() < 0.03 * one.norm()


def test_attention_is_fused_where_nothing_learns(
    block: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes of a bfloat16 model do not change; nor does what learns in another precision."""
    half = [part.detach().bfloat16() for part in blocks.project(block, _rows(block))]
    single = [part.float().requires_grad_() for part in half]
    monkeypatch.setattr(blocks, "softmax_products", None)
    for q, k, v in (half, single):
        fused = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        assert torch.equal(blocks.attention(block, q, k, v), fused)
    with pytest.raises(TypeError):
        blocks.attention(block, *(part.requires_grad_() for part in half))


def test_attention_dropout_holds_in_bfloat16(block: Any) -> None:
    q, k, v = (part.detach().bfloat16() for part in blocks.project(block, _rows(block)))
    dropping = copy.deepcopy(block)
    dropping.attn.attn_drop.p = 1.0
    assert not blocks.attention(dropping.train(), q.requires_grad_(), k, v).any()
    assert blocks.attention(dropping.eval(), q, k, v).any()
