"""DynamicViT against a plain float64 reference: fewer rows outside training, a policy within it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.plan import record
from fgdeploy.models.reduce.dynamicvit import Predictor
from fgdeploy.models.reduce.policy import policy_softmax
from fgdeploy.models.tokens import Tokens
from tests.models.reduce import learned, proof
from tests.models.samples import images


def _alone(*shares: float) -> proof.Make:
    return lambda stage, start: learned.DynamicViT(
        stage, lambda count: int((start - 1) * shares[stage - 1])
    )


def _cached(rate: float) -> proof.Make:
    return lambda stage, start: learned.DynamicViT(stage, lambda count: int((count - 2) * rate))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_it_equals_the_reference_alone_and_with_the_cache(rate: float) -> None:
    shares = tuple(rate**stage for stage in (1, 2, 3))
    proof.check("dynamicvit", _alone(*shares), {"keep_rate": str(rate)})
    proof.check("dynamicvit", _cached(rate), {"keep_rate": str(rate)}, clca={})


def test_of_several_rates_the_cache_follows_the_first() -> None:
    given = {"keep_rate": "0.7,0.5,0.3"}
    proof.check("dynamicvit", _alone(0.7, 0.5, 0.3), given)
    proof.check("dynamicvit", _cached(0.7), given, clca={"clr": 2})


def test_registers_may_go() -> None:
    backbone = "vit_small_patch14_reg4_dinov2"
    proof.check("dynamicvit", _alone(0.5, 0.25, 0.125), {}, backbone)


def test_rows_of_the_plan() -> None:
    made = proof.encoder("clca", {"reduction": "dynamicvit", "keep_rate": "0.5"}).float()
    plan = record(Network(made, NoHead()).deployed(), 64)
    assert [run.keyval for run in plan.runs] == [18, 1 + 8, 1 + 4, 5 + 2, 1 + 2, 3 + 4]
    layers = 64 * 64 + 64 * 32 + 32 * 16 + 16 * 2
    assert plan.others == (17 + 10 + 6) * layers


def test_a_mean_of_rows_that_do_not_count_is_no_nan() -> None:
    torch.manual_seed(0)
    predictor, x = Predictor(8).double(), torch.randn(1, 5, 8, dtype=torch.float64)
    for weight in predictor.requires_grad_(False).parameters():
        weight.copy_(torch.randn(weight.shape))
    policy = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    p = {name: value.numpy() for name, value in predictor.state_dict().items()}
    for row in policy:
        logits = predictor(x, row[None])[0].log_softmax(dim=1)
        want = torch.from_numpy(learned.predicted(x[0].numpy(), row.numpy(), p))
        proof.close(logits, want, 1e-12)


def _trained(made: Any, photos: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return normed CLS rows of a forward pass in training, and the decision of each stage."""
    x = made.embed(photos).x
    state = {name: value.numpy() for name, value in made.state().items()}
    policy, decisions = torch.ones(x.shape[:2], dtype=x.dtype), []
    for number, block in enumerate(made.vit.blocks, start=1):
        if number in proof.BLOCKS:
            start = f"stages.{len(decisions)}.predictor."
            p = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            logits = [
                torch.from_numpy(learned.predicted(rows[1:].numpy(), counted[1:].numpy(), p))
                for rows, counted in zip(x, policy, strict=True)
            ]
            drawn = F.gumbel_softmax(torch.stack(logits), hard=True)[:, :, 0]
            decisions.append(drawn * policy[:, 1:])
            policy = torch.cat([policy[:, :1], decisions[-1]], dim=1)
        x = _followed(block, x, policy)
    return made.vit.norm(x)[:, 0], decisions


def _followed(block: Any, x: Tensor, policy: Tensor) -> Tensor:
    q, k, v = blocks.project(block, x)
    products = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    raised, rows = (products - products.amax(-1, keepdim=True)).exp(), x.shape[1]
    for row in range(rows):
        for key in set(range(rows)) - {row}:
            raised[:, :, row, key] *= policy[:, None, key]
    shares = (raised + 1e-6 / rows) / (raised.sum(-1, keepdim=True) + 1e-6)
    merged = blocks.merge(block, x, (shares @ v).transpose(1, 2).flatten(2))
    return blocks.feed_forward(block, merged)


def test_in_training_a_drawn_policy_takes_the_place_of_going() -> None:
    made = proof.encoder("dynamicvit", {"keep_rate": "0.5"}).train()
    photos = images(2, 64)
    torch.manual_seed(5)
    features = made(photos)
    torch.manual_seed(5)
    want, decisions = _trained(made, photos)
    proof.close(features.embedding, want, 1e-11)
    for kept, penalty, share in zip(decisions, features.penalties, (0.5, 0.25, 0.125), strict=True):
        assert 0 < kept.sum() < kept.numel()
        off = [(float(one.mean()) - share) ** 2 for one in kept]
        assert abs(penalty.item() - 2.0 / 3 * sum(off) / len(off)) < 1e-12
    outside = made.eval()(photos)
    assert outside.penalties == ()
    assert not torch.allclose(outside.embedding, want)


def test_in_training_rows_that_come_back_count() -> None:
    made = proof.encoder("clca", {"reduction": "dynamicvit"}).train()
    seen: list[Tokens] = []

    class Watch:
        wants_attention = True

        def __call__(self, number: int, tokens: Tokens) -> None:
            seen.append(tokens)

    features = made(images(2, 64), [Watch()])
    assert [tokens.count for tokens in seen] == [18, 20, 22, 22, 26, 1]
    assert len(features.penalties) == 3
    policy = seen[4].policy
    assert policy is not None and policy[:, -4:].all()
    assert not policy.all()
    assert seen[5].attended is not None and seen[5].attended.out.shape[1] == 26


@pytest.mark.parametrize("method", ["dynamicvit", "clca"])
def test_gradients_reach_every_own_weight(method: str) -> None:
    given = {"keep_rate": "0.7"} | ({"reduction": "dynamicvit"} if method == "clca" else {})
    made = proof.encoder(method, given).requires_grad_(True).train()
    torch.manual_seed(0)
    features = made(images(4, 64))
    features.embedding.square().sum().backward()  # by the policy alone, without the ratio's loss
    predictors = [name for name in made.own() if ".predictor." in name]
    assert len(predictors) == 3 * 10
    for name in predictors:
        assert made.state()[name].grad.abs().max() > 0, name


def test_a_policy_of_ones_is_a_softmax_but_for_its_epsilon() -> None:
    products = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    shares = policy_softmax(products.half(), torch.ones(2, 7).half())
    assert shares.dtype == torch.float32
    assert torch.allclose(shares, products.half().float().softmax(dim=-1), atol=1e-5)
    hidden = policy_softmax(products, torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]] * 2))
    assert float(hidden[:, :, 0, 1:].max()) < 1e-5
    own = hidden.diagonal(dim1=2, dim2=3)
    assert torch.allclose(hidden[:, :, 1:, 0] + own[:, :, 1:], torch.ones(2, 3, 6), atol=1e-5)


def test_training_runs_in_half_precision() -> None:
    made = proof.encoder("clca", {"reduction": "dynamicvit"}).float().requires_grad_(True).train()
    with torch.autocast("cpu", torch.bfloat16):
        features = made(images(2, 64, torch.float32))
    (features.embedding.float().square().sum() + torch.stack(features.penalties).sum()).backward()
    for name in made.own():
        grad = made.state()[name].grad
        assert grad is None or bool(grad.isfinite().all()), name
    assert made.state()["stages.0.predictor.in_conv.1.weight"].grad.any()
