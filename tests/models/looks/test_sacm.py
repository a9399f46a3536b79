"""SACM with logarithms is SACM with products, where products can be held at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone.blocks import Attended
from fgdeploy.models.looks.sacm import SACM, CLSReader, Fused
from fgdeploy.models.tokens import Tokens
from tests.models.methods.reference_aftrans import gates, pooled, products
from tests.models.methods.reference_looks import first_best


def _attended(
    blocks: int, heads: int, tokens: int, spread: float = 1.0, dtype: torch.dtype = torch.float64
) -> list[Attended]:
    generator = torch.Generator().manual_seed(tokens)

    def drawn(factor: float = 1.0) -> Tensor:
        shape = (2, heads, tokens, 8)
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * factor).to(dtype)

    none = torch.zeros(())
    return [Attended(none, drawn(spread), drawn(), none, none) for _ in range(blocks)]


def _fused(sacm: SACM, blocks: list[Attended]) -> Fused:
    reader = CLSReader(sacm)
    for number, attended in enumerate(blocks, start=1):
        reader(number, Tokens(torch.zeros(2, 1, 1), attended=attended))
    found: Fused = sacm(reader)
    return found


def _learned(depth: int, keep: float, pool: str = "cls") -> SACM:
    torch.manual_seed(1)
    sacm = SACM(depth, max(1, depth // 4), keep, pool).double()
    with torch.no_grad():
        sacm.fc2.weight.normal_()
    return sacm


@pytest.mark.parametrize("tokens", [26, 325, 1370])
@pytest.mark.parametrize("keep", [0.01, 0.4])
def test_the_best_by_logarithms_are_the_best_products(tokens: int, keep: float) -> None:
    """324 and 1369 patches are those of 224 and 448 pixels; products in long double."""
    blocks = _attended(12, 12, tokens)
    sacm = _learned(12, keep)
    with torch.no_grad():
        fused = _fused(sacm, blocks)
        rows = [one.cls_attention().unsqueeze(2).numpy() for one in blocks]
    state = {f"sacm.{name}": value.numpy() for name, value in sacm.state_dict().items()}
    for image in range(2):
        attention = np.stack([row[image] for row in rows])  # [L, H, 1, T]
        held = gates(state, pooled(attention, literal=False, full_map=False))
        np.testing.assert_allclose(fused.gates[image].numpy(), held, rtol=1e-12)
        values = held[:, None] * products(attention)[:, 0, 1:]
        chosen = first_best(values.reshape(-1), math.floor(keep * values.size))
        expected = np.zeros(tokens - 1)
        expected[np.array(chosen) % (tokens - 1)] = 1
        assert (fused.mask[image].numpy() == expected).all()
        found = fused.scores[image].numpy()
        np.testing.assert_allclose(found, np.log(values).astype(np.float64), rtol=1e-12)


@pytest.mark.parametrize("pool", ["cls", "full_map"])
def test_gates_are_told_by_a_row_or_by_the_whole_map(pool: str) -> None:
    blocks = _attended(3, 4, 17, 2.0)
    sacm = _learned(3, 0.4, pool)
    with torch.no_grad():
        fused = _fused(sacm, blocks)
    state = {f"sacm.{name}": value.numpy() for name, value in sacm.state_dict().items()}
    for image in range(2):
        maps = np.stack([one.full_attention()[image].numpy() for one in blocks])
        held = gates(state, pooled(maps, literal=False, full_map=pool == "full_map"))
        np.testing.assert_allclose(fused.gates[image].numpy(), held, rtol=1e-12)


def test_gates_start_even_and_every_row_can_learn() -> None:
    sacm = SACM(12, 3, 0.4, "cls")
    fused = _fused(sacm, _attended(12, 12, 26, dtype=torch.float32))
    assert (fused.gates == 0.5).all()
    fused.gates.square().sum().backward()
    assert sacm.fc2.weight.grad is not None and (sacm.fc2.weight.grad != 0).all()


def test_products_are_zero_in_float32_where_logarithms_tell_apart() -> None:
    """So the paper's own pooling has sigmoid(0), and gates of exactly one half."""
    blocks = _attended(12, 12, 1370, 3.0, torch.float32)
    with torch.no_grad():
        fused = _fused(_learned(12, 0.4).float(), blocks)
        rows = torch.stack([one.cls_attention().prod(dim=1) for one in blocks])
        nothing = (rows.mean(dim=-1).half() == 0).all()
    assert (rows == 0).float().mean() > 0.5 and nothing
    assert fused.scores.isfinite().all()
    assert fused.scores.flatten(1).unique(dim=1).shape[1] > 16_000
    full = [Attended(one.x, one.q.double(), one.k.double(), one.v, one.out) for one in blocks]
    with torch.no_grad():
        expected = _fused(_learned(12, 0.4), full)
    assert (fused.mask != expected.mask).float().mean() < 1e-3


def test_equal_entries_are_taken_in_order() -> None:
    """Blocks in order, then patches: 5 of 2 x 4 equal ones are four of the first and one."""
    none = torch.zeros(())
    same = Attended(none, torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4), none, none)
    sacm = SACM(2, 1, 0.7, "cls")
    reader = CLSReader(sacm)
    for number in (1, 2):
        reader(number, Tokens(torch.zeros(1, 1, 1), attended=same))
    assert sacm(reader).mask.tolist() == [[1, 1, 1, 1]]
    few = SACM(2, 1, 0.3, "cls")
    assert few(reader).mask.tolist() == [[1, 1, 0, 0]]


def test_of_a_block_only_one_number_a_token_is_kept() -> None:
    reader = CLSReader(SACM(2, 1, 0.4, "full_map"))
    for number, attended in enumerate(_attended(2, 4, 33), start=1):
        reader(number, Tokens(torch.zeros(2, 1, 1), attended=attended))
    assert [one.shape for one in reader.logs] == [(2, 33)] * 2
    assert [one.shape for one in reader.means] == [(2,)] * 2


def test_under_autocast_it_decides_in_float32() -> None:
    blocks = _attended(4, 4, 65, dtype=torch.float32)
    sacm = _learned(4, 0.1).float()
    with torch.no_grad():
        alone = _fused(sacm, blocks)
        with torch.autocast("cpu", torch.bfloat16):
            within = _fused(sacm, blocks)
    assert torch.equal(alone.scores, within.scores) and torch.equal(alone.mask, within.mask)


def test_the_shown_attention_is_greatest_in_the_mask() -> None:
    fused = _fused(_learned(4, 0.05), _attended(4, 4, 65))
    shown = fused.attention
    for image in range(2):
        inside = fused.mask[image] > 0
        assert shown[image][inside].min() > shown[image][~inside].max()
