"""The photos of a training: division, bad input, and samples that depend on the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.photos import Photo
from fgdeploy.training import data
from tests.checks import refused

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


def _divide(
    source: Path, holdout: float = 0.25, strict: bool = False
) -> tuple[data.Division, list[str]]:
    said: list[str] = []
    return data.divide(source, holdout, 0, strict, said.append), said


def test_a_folder_is_divided_class_by_class(tmp_path: Path) -> None:
    division, said = _divide(_folder(tmp_path / "set", {"a": 8, "b": 4, "c": 4}))
    assert division.classes == ("a", "b", "c")
    per_class = {name: [p.label for p in division.test].count(name) for name in "abc"}
    assert per_class == {"a": 2, "b": 1, "c": 1}
    assert len(division.train) == 12
    assert not {p.path for p in division.train} & {p.path for p in division.test}
    assert division.labels(division.train).tolist() == [0] * 6 + [1] * 3 + [2] * 3
    assert said == []


def test_the_seed_decides_who_is_held_out(tmp_path: Path) -> None:
    source = _folder(tmp_path / "set", {"a": 9, "b": 9})
    held = [{p.path for p in data.divide(source, 0.3, seed, False).test} for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_no_holdout_trains_on_everything(tmp_path: Path) -> None:
    division, _ = _divide(_folder(tmp_path / "set", {"a": 3, "b": 3}), holdout=0)
    assert len(division.train) == 6
    assert division.test == ()


def test_splits_of_a_csv_are_kept_and_others_left_out(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    rows = ["path,class,split"]
    for label in "ab":
        for index, split in enumerate(("train", "test", "val")):
            rows.append(f"{label}/{index:02d}.png,{label},{split}")
    (root / "split.csv").write_text("\n".join(rows))
    division, _ = _divide(root / "split.csv")
    assert [p.path.name for p in division.train] == ["00.png", "00.png"]
    assert [p.path.name for p in division.test] == ["01.png", "01.png"]


def test_a_class_with_one_photo_is_trained_on_and_named(tmp_path: Path) -> None:
    division, said = _divide(_folder(tmp_path / "set", {"a": 4, "b": 4, "lone": 1}), holdout=0.5)
    assert [p.label for p in division.train].count("lone") == 1
    assert [p.label for p in division.test].count("lone") == 0
    assert len(said) == 1
    assert said[0].startswith("class lone: one training photo only")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    (root / "nothing").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "readme.txt").write_text("no image")
    _, said = _divide(root)
    assert said == ["classes nothing, texts: the folder has no images; left out"]


def test_unreadable_photos_are_named_counted_and_skipped(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 4, "b": 4})
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    whole = (root / "b" / "00.png").read_bytes()
    (root / "b" / "00.png").write_bytes(whole[: len(whole) // 2])
    division, said = _divide(root)
    assert len(division.train) + len(division.test) == 7
    assert len(division.skipped) == 2
    assert said[-1] == "2 photos skipped (--strict stops at the first)"
    assert any("broken.jpg" in line for line in said)
    with refused(ImageError, r"broken\.jpg"):
        _divide(root, strict=True)


def test_photos_of_one_class_teach_nothing(tmp_path: Path) -> None:
    with refused(DataError, "two classes or more, got 1"):
        _divide(_folder(tmp_path / "set", {"a": 5}))


def test_labels_without_files_are_refused_with_their_line(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2})
    (root / "split.csv").write_text("path,class,split\na/00.png,a,train\nb/77.png,b,train\n")
    with refused(DataError, r"line 3: no file 'b/77.png'"):
        _divide(root / "split.csv")


def test_photos_without_class_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2})
    (root / "split.csv").write_text("path,class\na/00.png,a\nb/00.png,\n")
    with refused(DataError, "1 photos have no class"):
        _divide(root / "split.csv")


def test_classes_that_are_only_asked_for_are_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2, "c": 2})
    rows = ["path,class,split", "c/00.png,c,test"]
    rows += [f"{label}/0{i}.png,{label},train" for label in "ab" for i in range(2)]
    (root / "split.csv").write_text("\n".join(rows))
    division, said = _divide(root / "split.csv")
    assert division.classes == ("a", "b")
    assert said == [
        "class c: photos to test but none to train on; they stay in the evaluation, where they "
        "have no target code"
    ]


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
