"""The photos of a training as samples that depend on the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgdeploy.photos import Photo, images
from fgdeploy.training import data

_COLOURS = {"a": (200, 30, 30), "b": (30, 200, 30), "c": (30, 30, 200)}


def _folder(root: Path, counts: dict[str, int]) -> Path:
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((40, 60, 3), _COLOURS.get(label, (90, 90, 90)), np.uint8)
            pixels[:, :20] += np.uint8(index)
            pixels[10:20, 30:50] = 255 - pixels[10:20, 30:50]
            Image.fromarray(pixels).save(root / label / f"{index:02d}.png")
    return root


def _views(root: Path, seed: int = 0) -> data.Views:
    paths = sorted(root.rglob("*.png"))
    chosen = [Photo(path, path.parent.name) for path in paths]
    labels = np.array([ord(path.parent.name) - ord("a") for path in paths], dtype=np.int64)
    return data.Views(chosen, labels, data.crop_and_flip(16, 0.3), 64, seed)


def test_a_view_depends_on_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    views, again, other = _views(root), _views(root), _views(root, seed=1)
    first = views[(0, 2)]
    torch.manual_seed(99)
    torch.rand(5)
    repeated = again[(0, 2)]
    one, two = first[0]["image"], repeated[0]["image"]
    assert list(first[0]) == ["image"]
    assert torch.equal(one, two)
    assert first[1:] == repeated[1:] == (0, 2)
    assert one.shape == (3, 16, 16)
    assert one.dtype == torch.uint8
    assert not torch.equal(one, views[(1, 2)][0]["image"])
    assert not torch.equal(one, other[(0, 2)][0]["image"])


def test_views_leave_the_global_generator_alone(tmp_path: Path) -> None:
    views = _views(_folder(tmp_path / "set", {"a": 2, "b": 2}))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    views[(0, 0)]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("count,batch", [(10, 4), (8, 4), (3, 8)])
def test_an_epoch_holds_every_photo_once(count: int, batch: int) -> None:
    plan = data.order(count, batch, 3, 0)
    rows = [row for group in plan for epoch, row in group]
    assert sorted(rows) == list(range(count))
    assert all(epoch == 3 for group in plan for epoch, _ in group)
    assert [len(group) for group in plan[:-1]] == [batch] * (len(plan) - 1)
    assert plan != data.order(count, batch, 4, 0) or count < 4
    assert plan == data.order(count, batch, 3, 0)


def test_workers_change_nothing(tmp_path: Path) -> None:
    views = _views(_folder(tmp_path / "set", {"a": 3, "b": 3}))
    plan = data.order(6, 4, 0, 0)
    alone = list(data.batches(views, plan, 0))
    helped = list(data.batches(views, plan, 1))
    assert [len(batch[0]["image"]) for batch in alone] == [4, 2]
    for one, two in zip(alone, helped, strict=True):
        assert list(one[0]) == list(two[0]) == ["image"]
        assert torch.equal(one[0]["image"], two[0]["image"])
        assert all(torch.equal(a, b) for a, b in zip(one[1:], two[1:], strict=True))


def test_derived_seeds_differ_and_fit_torch() -> None:
    seeds = {data.derive(seed, use, n) for seed in range(3) for use in range(3) for n in range(40)}
    assert len(seeds) == 360
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


def test_a_photo_may_be_seen_in_several_ways(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 1})
    plain = data.crop_and_flip(16, 0.3)

    def both(image: Image.Image) -> dict[str, torch.Tensor]:
        return {name: torch.as_tensor(plain(image)) for name in ("image", "other")}

    paths = sorted(root.rglob("*.png"))
    chosen = [Photo(path, path.parent.name) for path in paths]
    views = data.Views(chosen, np.array([0, 0, 1]), both, 64, 0)
    one = views[(0, 1)][0]
    assert list(one) == ["image", "other"] and not torch.equal(one["image"], one["other"])
    (batch,) = data.batches(views, [[(0, 0), (0, 1), (0, 2)]], 0)
    assert {name: tuple(view.shape) for name, view in batch[0].items()} == {
        "image": (3, 3, 16, 16),
        "other": (3, 3, 16, 16),
    }
    assert torch.equal(batch[0]["other"][1], one["other"])
    assert views.labels.tolist() == [0, 0, 1]


# Batches of whole groups


_LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [7, 1, 4, 6])).astype(int)


@pytest.mark.parametrize(("batch", "per_class"), [(8, 2), (8, 4), (6, 4), (2, 3), (18, 1), (64, 2)])
def test_a_balanced_batch_holds_classes_side_by_side(batch: int, per_class: int) -> None:
    plan = data.balanced_order(_LABELS, batch, per_class, 3, 0)
    rows = [row for group in plan for _, row in group]
    assert set(rows) == set(range(len(_LABELS)))  # every photo, some more than once
    assert all(epoch == 3 for group in plan for epoch, _ in group)
    counts = {label: int((label == _LABELS).sum()) for label in set(_LABELS.tolist())}
    groups = {label: -(-count // per_class) for label, count in counts.items()}
    assert len(rows) == per_class * sum(groups.values())
    most = max(1, batch // per_class) * per_class
    assert [len(group) for group in plan[:-1]] == [most] * (len(plan) - 1)
    assert 0 < len(plan[-1]) <= most
    for group in plan:
        for start in range(0, len(group), per_class):
            same = {int(_LABELS[row]) for _, row in group[start : start + per_class]}
            assert len(same) == 1
    for label, count in counts.items():  # nobody is repeated more often than needed
        own = [row for row in rows if _LABELS[row] == label]
        assert max(own.count(row) for row in own) == -(-groups[label] * per_class // count)


def test_groups_of_a_class_are_spread_over_the_epoch() -> None:
    plan = data.balanced_order(np.repeat(np.arange(6), 8), 12, 2, 0, 0)
    assert len(plan) == 4
    for group in plan:
        assert sorted({row // 8 for _, row in group}) == [0, 1, 2, 3, 4, 5]


def test_a_balanced_order_depends_on_seed_and_epoch_alone() -> None:
    def rows(epoch: int, seed: int) -> list[list[int]]:
        torch.rand(3)
        np.random.default_rng().random()
        plan = data.balanced_order(_LABELS, 8, 2, epoch, seed)
        return [[row for _, row in group] for group in plan]

    assert rows(0, 0) == rows(0, 0)
    assert rows(0, 0) != rows(1, 0)
    assert rows(0, 0) != rows(0, 1)


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [
        (9, 4, {3}),
        (12, 4, {4}),
        (2999, 64, {63, 64}),
        (5, 4, {2, 3}),
        (6, 5, {3}),
        (5, 2, {2}),
        (2, 64, {2}),
    ],
)
def test_even_batches_leave_no_photo_alone(count: int, batch: int, sizes: set[int]) -> None:
    labels = np.zeros(count, np.int64)
    plain = data.plan(labels, batch, None, 3, 7)
    even = data.plan(labels, batch, None, 3, 7, even=True)
    assert {len(one) for one in even} == sizes
    assert len(even) == len(plain)
    every = [item for one in plain for item in one]
    flat = [item for one in even for item in one]
    assert set(flat) == set(every)
    again = [every[0]] if batch == 2 and count % 2 else []  # in company of the one left alone
    assert sorted(flat) == sorted(every + again)
    if not again:
        assert flat == every


def test_what_fills_no_batch_may_wait_for_the_next_epoch() -> None:
    labels = np.zeros(11, np.int64)
    plain = data.plan(labels, 4, None, 3, 7)
    assert data.plan(labels, 4, None, 3, 7, drop_last=True) == plain[:2]
    assert data.plan(labels[:8], 4, None, 3, 7, drop_last=True) == data.plan(
        labels[:8], 4, None, 3, 7
    )
    assert data.plan(labels, 64, None, 3, 7, drop_last=True) == data.plan(labels, 64, None, 3, 7)


def test_square_views_are_crops_of_the_photo_scaled_to_a_square() -> None:
    """With every crop tried, one equals what Pillow cuts; at least 1 there is but one."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    square = np.array(image.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    torch.manual_seed(0)
    whole = [data.square_crop_and_flip(32, 1.0)(image) for _ in range(8)]
    ways = [np.array_equal(np.asarray(one), square) for one in whole]
    turned = [np.array_equal(np.asarray(one)[:, :, ::-1], square) for one in whole]
    assert any(ways) and any(turned)
    assert all(one != other for one, other in zip(ways, turned, strict=True))
    cut = np.asarray(data.square_crop_and_flip(28, 0.875**2)(image))
    places = [square[:, y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
    assert sum(np.array_equal(way, one) for one in places for way in (cut, cut[:, :, ::-1])) == 1


def test_bilinear_square_views_are_transfg_s() -> None:
    """600 pixels for 448, so 75 for 56: a photo that is as large already is only cut."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 75, 75), dtype=np.uint8)
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    cut = np.asarray(data.bilinear_square_crop_and_flip(56, (448 / 600) ** 2)(image))
    windows = np.lib.stride_tricks.sliding_window_view(pixels[0], (56, 56))
    same = [(windows == one[0]).all(axis=(2, 3)).sum() for one in (cut, cut[:, :, ::-1])]
    assert sum(same) == 1


# What is kept


def _large(root: Path) -> tuple[list[Photo], data.Views]:
    """Return three photos of twice the size that views need, and views of them."""
    across, down = np.meshgrid(np.linspace(0, 230, 96), np.linspace(0, 230, 64))
    paths = [root / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = np.stack([across, down, np.full_like(down, 80 * number)], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    chosen = [Photo(path, "a") for path in paths]
    labels = np.zeros(3, dtype=np.int64)
    return chosen, data.Views(chosen, labels, data.crop_and_flip(16, 0.3), 32, 0)


def _scaled(image: Image.Image) -> torch.Tensor:
    pixels = np.array(image.resize((16, 16), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def test_photos_are_kept_no_larger_than_views_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, views = _large(tmp_path)
    decoded: list[Path] = []
    real = images.decode

    def counting(path: Path, *given: Any) -> Image.Image:
        decoded.append(path)
        return real(path, *given)

    monkeypatch.setattr(images, "decode", counting)
    monkeypatch.setattr(data, "KEPT_BYTES", 2 * 48 * 32 * 3)  # room for two of them, reduced
    first = [views[(0, row)][0]["image"] for row in range(3)]
    again = [views[(0, row)][0]["image"] for row in range(3)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert [path.name for path in decoded] == ["0.png", "1.png", "2.png", "2.png"]
    small = data.Views(chosen, views.labels, _scaled, 32, 0)
    whole = data.Views(chosen, views.labels, _scaled, 64, 0)
    for row in range(3):
        one, two = (given[(0, row)][0]["image"].double() for given in (small, whole))
        assert (one - two).abs().max() < 4


def test_workers_live_for_the_whole_plan(tmp_path: Path) -> None:
    """One feed gives the batches of several epochs, and reads its plan as it goes."""
    views = _views(_folder(tmp_path / "set", {"a": 3, "b": 3}))
    read: list[int] = []

    def ahead() -> Iterator[list[tuple[int, int]]]:
        for epoch in range(50):
            read.append(epoch)
            yield from data.order(6, 4, epoch, 0)

    feed = data.batches(views, ahead(), 1)
    rows = [batch[2].tolist() for batch in itertools.islice(feed, 4)]
    feed.close()
    assert rows == [[row for _, row in group] for e in (0, 1) for group in data.order(6, 4, e, 0)]
    assert read[-1] < 5
