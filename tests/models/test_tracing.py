"""What rows stand for and how attention mixes them, against plain float64 references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models import tracing
from fgdeploy.models.backbone import vit
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods import eet, registry
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.reductions import REDUCTIONS
from tests.checks import refused
from tests.made_up import MADE_UP, MadeUpOptions
from tests.models.reduce import learned, proof, reference
from tests.models.reduce.reference import Reduce, State
from tests.models.samples import NORM, images

PATCHES, BLOCKS = 16, proof.BLOCKS


class _EET(Reduce):
    """The patches of the best scores (Eq. 3 to 5): attention of CLS times a head's weight."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def after(self, s: State) -> None:
        out = s.out.reshape(len(s.out), len(s.attention), -1)[1:]
        norms = np.sqrt((out**2).sum(axis=2))
        weights = norms / (norms.sum(axis=1, keepdims=True) + 1e-8)
        scores = (s.attention[:, 0, 1:].T * weights).sum(axis=1)
        best = np.argsort(-scores, kind="stable")[: self.keep] + 1
        s.take([0, *sorted(int(row) for row in best)])


DROPPING = {
    "eet": lambda s, start: _EET([8, 4, 2][s - 1]),
    "evit": lambda s, start: reference.TopK(0.5, fused=True),
    "topk": lambda s, start: reference.TopK(0.5),
    "dynamicvit": lambda s, start: learned.DynamicViT(s, lambda t: int((start - 1) * 0.5**s)),
    "cropr": lambda s, start: learned.Cropr(s, int(PATCHES * 0.5**s)),
}
ALL = {name: {} for name in ("eet", *REDUCTIONS)} | {
    f"clca with {name}": {"reduction": name} for name in ("evit", "tome", "dpcknn", "sit")
}


class _Given(torch.nn.Module):
    """Pixels as they are given: the tests' images are normalised."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, frames: Tensor) -> Tensor:
        return self.pixels


def _network(method: str, options: Mapping[str, str] | None = None) -> Network:
    if method == "eet":
        stages = EETOptions.parse({"stages": "2:8,3:4,5:2"})
        made = eet.build(proof.narrow(proof.SMALL, 64), NORM, stages)
        return Network(made, NoHead()).double().eval()
    return Network(proof.encoder(method, options or {}), NoHead()).double().eval()


def _frames(count: int = 2) -> Any:
    return np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), np.uint8)


def _with_images(network: Network, size: int = 64) -> Network:
    """Let a network take the images of the reference, whatever the frames."""
    network.pixels = _Given(images(2, size))
    return network


class _Watched(Reduce):
    """A reference reduction that says which rows it took."""

    def __init__(self, inner: Reduce) -> None:
        self.inner = inner
        self.patches: list[list[int]] = []

    def _around(self, name: str, s: State) -> None:
        before = [tuple(row) for row in s.x]
        getattr(self.inner, name)(s)
        after = [tuple(row) for row in s.x]
        if len(after) != len(before):
            self.patches.append([before.index(row) for row in after if row in before])

    def before(self, s: State) -> None:
        self._around("before", s)

    def between(self, s: State) -> None:
        self._around("between", s)

    def after(self, s: State) -> None:
        self._around("after", s)


@pytest.mark.parametrize("name", DROPPING)
def test_kept_patches_are_those_of_the_reference(name: str) -> None:
    network = _with_images(_network(name))
    found = tracing.trace(network.published(), _frames())
    state = {key: value.numpy() for key, value in network.encoder.state().items()}
    for image, one in zip(images(2, 64).numpy(), found, strict=True):
        steps = {
            block: _Watched(DROPPING[name](stage, PATCHES + 1))
            for stage, block in enumerate(BLOCKS, start=1)
        }
        reference.forward(state, image, 2, 16, steps)
        left = list(range(-1, PATCHES))  # CLS is -1
        for block, held in zip(BLOCKS, one.held, strict=True):
            left = [left[row] if row < len(left) else -2 for row in steps[block].patches[0]]
            alone = held.shares[(held.shares > 0).sum(axis=1) == 1]
            kept = sorted(int(row.argmax()) for row in alone)
            assert held.block == block
            assert kept == sorted(patch for patch in left if patch >= 0)
            left.append(-2)  # EViT's fused row


@pytest.mark.parametrize("name", ALL)
def test_shares_of_a_patch_add_up_to_one_or_nothing(name: str) -> None:
    """And published and deployed networks show the same."""
    network = _network(name.split()[0], ALL[name])
    published = tracing.trace(network.published(), _frames())
    deployed = tracing.trace(network.deployed(), _frames())
    dropping = name in ("eet", "topk", "ats", "dynamicvit", "cropr")
    for one, other in zip(published, deployed, strict=True):
        blocks = [held.block for held in one.held]
        assert blocks == list(BLOCKS) or (name == "ats" and set(blocks) < set(BLOCKS))
        assert [held.block for held in other.held] == blocks
        for held, again in zip(one.held, other.held, strict=True):
            np.testing.assert_allclose(held.shares, again.shares, atol=1e-9)
            sums = held.shares.sum(axis=0)
            whole = np.isclose(sums, 1, atol=1e-12)
            assert (whole | (sums == 0)).all()
            assert whole.all() != dropping
        counts = [int(held.shares.any(axis=0).sum()) for held in one.held]
        assert counts == sorted(counts, reverse=True)


def test_tome_holds_as_many_patches_as_its_sizes_say() -> None:
    network = _network("tome")
    sizes: list[Tensor] = []
    for step in network.encoder.walk.steps.values():
        step.register_forward_hook(lambda _, given, tokens: sizes.append(tokens.size))
    (found,) = tracing.trace(network, _frames(1))
    for held in found.held:
        want = sizes[held.block - 1][0, 1:].numpy()
        np.testing.assert_allclose(held.shares.sum(axis=1), want, atol=1e-12)


def test_mame_shares_out_as_the_reference_does() -> None:
    """Its first stage, from the keys of the first block that reduces."""
    network = _with_images(_network("mame"))
    found = tracing.trace(network.published(), _frames())
    state = {key: value.numpy() for key, value in network.encoder.state().items()}

    class Parts(reference.MaMe):
        """Merge rows of one number each, which tell the parts."""

        shares: Any

        def between(self, s: State) -> None:
            twin = State(np.eye(len(s.x)), np.ones(len(s.x)), s.policy, s.suffix, k=s.k)
            super().between(twin)
            self.shares = (twin.x * twin.size[:, None])[1:, 1:]
            super().between(s)

    for image, one in zip(images(2, 64).numpy(), found, strict=True):
        first = Parts(8, 0.8, True)
        reference.forward(state, image, 2, 16, {BLOCKS[0]: first})
        np.testing.assert_allclose(one.held[0].shares, first.shares, atol=1e-12)


def test_rows_that_cropr_drops_come_back_for_the_last_block() -> None:
    network = _network("cropr").published()
    last = network.encoder.walk.steps["6"]
    seen: list[Any] = []
    last.register_forward_hook(lambda _, given, tokens: seen.append(tokens.origin))
    tracing.trace(network, _frames(1))
    assert torch.allclose(seen[0].rows[0].sum(dim=0), torch.ones(PATCHES, dtype=torch.float64))


# --- rollout


class _Rolled(Reduce):
    """Multiplies half the attention and half the identity, around another reduction.

    From the published maths alone; what the reduction does to rows it must do to the product.
    """

    def __init__(self, inner: Reduce, held: dict[str, Any]) -> None:
        self.inner, self.held = inner, held

    def before(self, s: State) -> None:
        self._as_rows(s, "before")

    def between(self, s: State) -> None:
        mixed = s.attention.mean(axis=0) @ self.held["product"]
        self.held["product"] = (self.held["product"] + mixed) / 2
        self._as_rows(s, "between")

    def after(self, s: State) -> None:
        self._as_rows(s, "after")

    def _as_rows(self, s: State, name: str) -> None:
        """Find the linear map from rows to rows: they are independent, as their width is large."""
        before = s.x.copy()
        getattr(self.inner, name)(s)
        if s.x.shape != before.shape:
            mix = np.linalg.lstsq(before.T, s.x.T, rcond=None)[0].T
            mix = np.where(np.abs(mix) < 1e-8, 0, mix)
            self.held["product"] = mix / mix.sum(axis=1, keepdims=True) @ self.held["product"]


@pytest.mark.parametrize(
    ("method", "reducing"),
    [
        ("eet", None),
        ("eet", DROPPING["eet"]),
        ("topk", DROPPING["topk"]),
        ("evit", DROPPING["evit"]),
        ("dynamicvit", DROPPING["dynamicvit"]),
        ("tome", lambda s, start: reference.ToMe([8, 4, 2][s - 1])),
        ("mame", lambda s, start: reference.MaMe([8, 4, 2][s - 1], 0.8, s == 1)),
        ("sit", lambda s, start: learned.SiT(s, [8, 4, 2][s - 1])),
    ],
)
def test_rollout_equals_a_product_of_matrices(method: str, reducing: Any) -> None:
    if reducing is None:
        made = registry.get(method).build(proof.narrow(proof.SMALL, 64), NORM, _dense(method))
        network = Network(made, NoHead()).double().eval()
        blocks: tuple[int, ...] = ()
    else:
        network, blocks = _network(method), BLOCKS
    found = tracing.rollout(_with_images(network).published(), _frames())
    assert found.shape == (2, 4, 4)
    state = {key: value.numpy() for key, value in network.encoder.state().items()}
    for image, one in zip(images(2, 64).numpy(), found, strict=True):
        held = {"product": np.eye(PATCHES + 1)[:, 1:]}
        steps = {
            block: _Rolled(
                reducing(1 + blocks.index(block), PATCHES + 1) if block in blocks else Reduce(),
                held,
            )
            for block in range(1, 7)
        }
        reference.forward(state, image, 2, 16, steps)
        np.testing.assert_allclose(one.ravel(), held["product"][0], rtol=1e-7, atol=1e-11)


def _dense(method: str) -> Any:
    return registry.get(method).options().dense()


def test_what_a_cache_brings_back_is_rolled_out_too() -> None:
    """By hand, where every row attends to all alike and Top-K takes the first rows of equals."""
    network = _network("clca", {"reduction": "topk", "blocks": "3"}).published()
    for block in network.encoder.vit.blocks:
        block.attn.qkv.weight.zero_()
        block.attn.qkv.bias.zero_()
    (found,) = tracing.rollout(network, _frames(1))

    def attended(rows: Any) -> Any:
        return rows / 2 + rows.mean(axis=0) / 2

    rows, cache, behind = np.eye(PATCHES + 2)[:, 1:-1], [], 1  # CLS, patches, CLR
    for block in range(1, 7):
        rows = attended(rows)
        if block == 3:  # CLS and half of the 17 rows behind it, then all that was kept
            rows, cache, behind = np.concatenate([rows[:10], *cache]), [], 4
        elif block == 5:
            rows = np.concatenate([rows, *cache])
        if block < 5:
            gap = rows[1 : len(rows) - behind].mean(axis=0, keepdims=True)
            cache += [gap, rows[-1:]]
    np.testing.assert_allclose(found.ravel(), rows[0], rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_a_rollout_is_a_share_of_one(name: str) -> None:
    network = _network(name.split()[0], ALL[name])
    for one in tracing.rollout(network.published(), _frames()):
        assert (one >= 0).all() and 0.1 < one.sum() < 1


def test_a_rollout_of_rows_that_nobody_attended_is_refused() -> None:
    words = r"^no rollout: 2 steps of 6 said .* let every step call Tokens.seeing$"
    with refused(UsageError, words):
        tracing.rollout(_network("topk").deployed(), _frames())


def test_a_step_that_does_not_say_what_its_rows_stand_for_is_refused() -> None:
    encoder = MADE_UP.build(vit.create("test_vit", 64), NORM, MadeUpOptions())
    words = r"^the step of block 2 does not say .*expected 11 of them, got 18\); let it pass on"
    with refused(UsageError, words):
        tracing.trace(Network(encoder, NoHead()).eval(), _frames())


def test_nothing_is_traced_behind_it() -> None:
    network = _network("evit")
    tracing.trace(network, _frames())
    assert not network.encoder.embed._forward_hooks
    assert all(not step._forward_hooks for step in network.encoder.walk.steps.values())
