"""Checkpoints: every layout that people have, and nothing that would run code."""

from __future__ import annotations

import argparse
import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone import vit
from fgdeploy.models.weights import checkpoint

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(vit.create(TINY, 32, classes=7, seed=5).state_dict())


def _equal(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return got.keys() == expected.keys() and all(torch.equal(got[k], expected[k]) for k in got)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"state_dict": s},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"module.{k}": v for k, v in s.items()} | {"epoch": torch.tensor(3)},
        lambda s: {"state_dict": {}, "model": s},
        lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1, data=["a"])},
    ],
)
def test_torch_files_are_unwrapped(tmp_path: Path, state: Any, wrap: Any) -> None:
    torch.save(wrap(state), tmp_path / "c.pth")
    assert _equal(checkpoint.read(tmp_path / "c.pth"), state)


def test_safetensors(tmp_path: Path, state: Any) -> None:
    save_file(state, tmp_path / "c.safetensors")
    assert _equal(checkpoint.read(tmp_path / "c.safetensors"), state)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_unreadable_files(tmp_path: Path, state: Any) -> None:
    torch.save({"model": state, "args": Fraction(1, 2)}, tmp_path / "objects.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    cases = {
        tmp_path / "missing.pth": "no checkpoint at .*missing.pth; check --checkpoint",
        tmp_path / "objects.pth": r"Python objects \(fractions\.Fraction\), which fgdeploy never",
        tmp_path / "list.pth": "expected a state dict, got list",
        tmp_path / "empty.pth": "empty.pth holds no tensors by name",
        _write(tmp_path / "cut.pth", whole[:5000]): "cut.pth is not a whole PyTorch",
        _write(tmp_path / "zero.pth", b""): "zero.pth is not a whole PyTorch",
        _write(tmp_path / "text.pth", b"path,class\n"): "text.pth is not a whole PyTorch",
        _write(tmp_path / "bad.safetensors", b"\x10" * 50): "not a whole safetensors file",
        _write(tmp_path / "zero.safetensors", b""): "not a whole safetensors file",
    }
    for path, pattern in cases.items():
        with pytest.raises(CheckpointError, match=pattern) as caught:
            checkpoint.read(path)
        assert "\n" not in str(caught.value)


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def _load(net: Any, state: dict[str, torch.Tensor]) -> None:
    """Copy a state dict into a ViT as an assembly does it, heads left out."""
    given = checkpoint.without_heads(state)
    if "pos_embed" in given:
        given["pos_embed"] = checkpoint.resize_positions(given["pos_embed"], net)
    checkpoint.load_matching(net.state_dict(), given, "c.pth")


def test_backbone_is_loaded_whatever_the_class_head(state: Any) -> None:
    net = vit.create(TINY, 32)
    _load(net, state)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_heads_are_told_by_the_first_part_of_their_name() -> None:
    state = {name: torch.ones(1) for name in ("head.weight", "head_hash.0.weight", "header.weight")}
    state |= {name: torch.ones(1) for name in ("head_dist.bias", "norm.head", "own.weight")}
    assert set(checkpoint.without_heads(state)) == {"header.weight", "norm.head", "own.weight"}
    assert "own.weight" not in checkpoint.without_heads(state, ("own", "head"))


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda s: s.pop("blocks.2.norm1.bias"), "c.pth lacks blocks.2.norm1.bias; .*--backbone"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("blocks.4.")],
            "c.pth lacks blocks.4.norm1.weight; .* and 9 more",
        ),
        (
            lambda s: s.update({"norm.weight": torch.zeros(5)}),
            r"misshapen norm.weight \(5,\), expected \(192,\)",
        ),
        (lambda s: s.update({"adapter.down": torch.zeros(5)}), "has unknown adapter.down"),
        (lambda s: s.update({"pre_logits.fc.bias": torch.zeros(5)}), "unknown pre_logits.fc.bias"),
        (
            lambda s: s.update({"norm.weight": torch.full((192,), float("nan"))}),
            "norm.weight holds NaN",
        ),
        (
            lambda s: s.update({"pos_embed": torch.zeros(1, 8, 192)}),
            r"misshapen pos_embed \(1, 8, 192\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(state: Any, change: Any, pattern: str) -> None:
    changed = dict(state)
    change(changed)
    with pytest.raises(CheckpointError, match=pattern) as caught:
        _load(vit.create(TINY, 32), changed)
    assert "\n" not in str(caught.value)


def test_positions_are_resized_bilinearly_and_cls_kept(state: Any) -> None:
    net = vit.create(TINY, 64)
    _load(net, state)
    given, got = state["pos_embed"][0], net.pos_embed.detach()[0]
    assert torch.equal(got[0], given[0])
    # From 2x2 to 4x4 without aligned corners the outer corners repeat the old ones.
    assert torch.allclose(got[[1, 4, 13, 16]], given[1:], atol=1e-6)
    middle = 0.75 * given[1] + 0.25 * given[2]
    assert torch.allclose(got[2], middle, atol=1e-6)


def test_fingerprint_follows_the_weights() -> None:
    one, two = vit.create(TINY, 32, seed=1), vit.create(TINY, 32, seed=1)
    assert checkpoint.digest(one.state_dict()) == checkpoint.digest(two.state_dict())
    with torch.no_grad():
        two.norm.bias[0] += 1e-6
    assert checkpoint.digest(one.state_dict()) != checkpoint.digest(two.state_dict())


def test_a_digest_by_hand() -> None:
    """In order of name within a group, groups in their own order: that of all bundles so far."""
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3]], dtype=torch.int64)}
    whole = hashlib.sha256()
    for text, kind, values in (
        ("b float32 (2,)\n", "<f4", [1.0, 2.0]),
        ("a int64 (1, 1)\n", "<i8", [3]),
        ("b float32 (2,)\n", "<f4", [1.0, 2.0]),
    ):
        whole.update(text.encode() + np.array(values, kind).tobytes())
    assert checkpoint.digest({"b": tensors["b"]}, tensors) == whole.hexdigest()
    assert checkpoint.digest(tensors, {"b": tensors["b"]}) != whole.hexdigest()
    assert checkpoint.digest(dict(reversed(tensors.items()))) == checkpoint.digest(tensors)


def test_nothing_is_copied_unless_all_of_it_fits() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="b holds NaN"):
        checkpoint.load_matching(
            wanted, {"a": torch.ones(2), "b": torch.full((2,), torch.nan)}, "c.pth"
        )
    assert not wanted["a"].any()
