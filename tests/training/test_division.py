"""Who trains and who asks: divided by class, bad input named, no photo on both sides."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fgdeploy.core.errors import DataError, ImageError, UsageError
from fgdeploy.training import division
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
    source: Path, val_fraction: float | None = None, strict: bool = False
) -> tuple[division.Division, list[str]]:
    said: list[str] = []
    return division.divide(source, val_fraction, 0, strict, said.append), said


def test_a_folder_is_divided_class_by_class(tmp_path: Path) -> None:
    made, said = _divide(_folder(tmp_path / "set", {"a": 8, "b": 4, "c": 4}), 0.25)
    assert made.classes == ("a", "b", "c")
    per_class = {name: [p.label for p in made.test].count(name) for name in "abc"}
    assert per_class == {"a": 2, "b": 1, "c": 1}
    assert len(made.train) == 12
    assert not {p.path for p in made.train} & {p.path for p in made.test}
    assert made.labels(made.train).tolist() == [0] * 6 + [1] * 3 + [2] * 3
    assert said == []


def test_the_seed_decides_who_is_held_out(tmp_path: Path) -> None:
    source = _folder(tmp_path / "set", {"a": 9, "b": 9})
    held = [{p.path for p in division.divide(source, 0.3, seed, False).test} for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_no_holdout_trains_on_everything(tmp_path: Path) -> None:
    made, _ = _divide(_folder(tmp_path / "set", {"a": 3, "b": 3}), val_fraction=0)
    assert len(made.train) == 6
    assert made.test == ()


def test_a_small_part_is_one_photo_of_each_class_that_has_two(tmp_path: Path) -> None:
    source = _folder(tmp_path / "set", {"a": 2, "b": 3, "c": 12, "lone": 1})
    for part, held in ((None, {"a": 1, "b": 1, "c": 2}), (0.01, {"a": 1, "b": 1, "c": 1})):
        made, _ = _divide(source, part)
        assert Counter(photo.label for photo in made.test) == held
    made, _ = _divide(source, 0.99)
    assert Counter(photo.label for photo in made.train) == {"a": 1, "b": 1, "c": 1, "lone": 1}


def test_a_part_for_photos_with_splits_is_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 4, "b": 4})
    rows = [f"{c}/0{i}.png,{c},{('train', 'test')[i % 2]}" for c in "ab" for i in range(4)]
    (root / "split.csv").write_text("path,class,split\n" + "\n".join(rows))
    for part in (0.0, 0.2):
        with refused(UsageError, f"--val-fraction {part}: .*split.csv says itself which photos"):
            _divide(root / "split.csv", part)
    rows[0] = rows[0].removesuffix("train")  # one without: the part is of these
    (root / "split.csv").write_text("path,class,split\n" + "\n".join(rows))
    assert len(_divide(root / "split.csv", 0.5)[0].test) == 4


def test_splits_of_a_csv_are_kept_and_others_left_out(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    rows = ["path,class,split"]
    for label in "ab":
        for index, split in enumerate(("train", "test", "val")):
            rows.append(f"{label}/{index:02d}.png,{label},{split}")
    (root / "split.csv").write_text("\n".join(rows))
    made, _ = _divide(root / "split.csv")
    assert [p.path.name for p in made.train] == ["00.png", "00.png"]
    assert [p.path.name for p in made.test] == ["01.png", "01.png"]


def test_a_class_with_one_photo_is_trained_on_and_named(tmp_path: Path) -> None:
    made, said = _divide(_folder(tmp_path / "set", {"a": 4, "b": 4, "lone": 1}), val_fraction=0.5)
    assert [p.label for p in made.train].count("lone") == 1
    assert [p.label for p in made.test].count("lone") == 0
    assert len(said) == 1
    assert said[0] == (
        "warning: class lone: one training photo only, so nothing shows how it varies, and 1 class "
        "of these cannot be tested; add photos"
    )


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    (root / "nothing").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "readme.txt").write_text("no image")
    _, said = _divide(root)
    assert said[0] == "classes nothing, texts: the folder has no images; left out"


def test_unreadable_photos_are_named_counted_and_skipped(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 4, "b": 4, "c": 4})
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    whole = (root / "b" / "00.png").read_bytes()
    (root / "b" / "00.png").write_bytes(whole[: len(whole) // 2])
    made, said = _divide(root)
    assert len(made.train) + len(made.test) == 11
    assert len(made.skipped) == 2
    assert said[-1] == "2 photos skipped (--strict stops at the first)"
    assert any("broken.jpg" in line for line in said)
    with refused(ImageError, r"broken\.jpg"):
        _divide(root, strict=True)


def test_photos_of_one_class_teach_nothing(tmp_path: Path) -> None:
    with refused(DataError, "two classes or more, got 1"):
        _divide(_folder(tmp_path / "set", {"a": 5}))


def test_no_photo_to_train_on_is_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2})
    rows = [f"{label}/0{i}.png,{label},test" for label in "ab" for i in range(2)]
    (root / "split.csv").write_text("\n".join(["path,class,split", *rows]))
    with refused(DataError, "split.csv: no photos to train on; check the split column"):
        _divide(root / "split.csv")


def test_labels_without_files_are_refused_with_their_line(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2})
    (root / "split.csv").write_text("path,class,split\na/00.png,a,train\nb/77.png,b,train\n")
    with refused(DataError, r"line 3: no file 'b/77.png'"):
        _divide(root / "split.csv")


def test_photos_without_class_are_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2})
    (root / "split.csv").write_text("path,class\na/00.png,a\nb/00.png,\n")
    with refused(DataError, "1 photo without a class"):
        _divide(root / "split.csv")


def test_classes_that_are_only_asked_for_are_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 2, "b": 2, "c": 2})
    rows = ["path,class,split", "c/00.png,c,test"]
    rows += [f"{label}/0{i}.png,{label},train" for label in "ab" for i in range(2)]
    (root / "split.csv").write_text("\n".join(rows))
    made, said = _divide(root / "split.csv")
    assert made.classes == ("a", "b")
    assert said[1:] == [
        "warning: classes a, b: photos to train on but none to test, so the scores say nothing of "
        "them; add test photos",
        "warning: class c: photos to test but none to train on; they stay in the evaluation, where "
        "they have no target code and count as 0 against training photos; check the class and "
        "split of each photo",
    ]


# --- the same photo twice


def _copy(root: Path, name: str, of: str) -> None:
    (root / name).write_bytes((root / of).read_bytes())


def test_copies_of_training_photos_are_not_held_out(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 8, "b": 8, "c": 4})
    alone, _ = _divide(root, 0.25)
    for photo in alone.test:
        _copy(root, f"{photo.label}/copy-{photo.path.name}", f"{photo.label}/{photo.path.name}")
    made, said = _divide(root, 0.25)
    sides = [{p.path.read_bytes() for p in side} for side in (made.train, made.test)]
    assert not sides[0] & sides[1]
    line = said[0]
    moved = re.fullmatch(
        r"(\d+) photos held out are copies of training photos, so they train", line
    )
    assert moved and len(made.test) + int(moved[1]) == round(0.25 * 10) * 2 + 1


def test_splits_that_share_a_photo_are_refused_unless_told(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    _copy(root, "b/copy.png", "b/00.png")
    rows = ["path,class,split", "b/copy.png,b,test"]
    rows += [f"{label}/0{i}.png,{label},train" for label in "ab" for i in range(3)]
    (root / "split.csv").write_text("\n".join(rows))
    with refused(
        DataError,
        r"^1 photo is in more than one split: .*b/00\.png \(train\) and .*b/copy\.png \(test\); "
        r"scores would be too good: leave them out of one, or pass --allow-leaks$",
    ):
        _divide(root / "split.csv")
    said: list[str] = []
    made = division.divide(root / "split.csv", None, 0, False, said.append, allow_leaks=True)
    assert (len(made.train), len(made.test)) == (6, 1)
    assert said[0].startswith("warning: 1 photo is in more than one split: ")


def test_a_photo_of_two_classes_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3})
    _copy(root, "b/copy.png", "a/00.png")
    _, said = _divide(root, val_fraction=0)
    assert said[0].startswith("warning: 1 photo is in more than one class: ")
    assert said[0].endswith("copy.png (b); one of them is wrong")


def test_what_a_scan_leaves_out_is_skipped(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3, "c": 3})
    (root / "a" / "x.nef").touch()
    made, said = _divide(root)
    assert len(made.skipped) == 1
    assert said[-1].endswith(" skipped (--strict stops at the first)")
    with refused(ImageError, r"x\.nef is raw camera data"):
        _divide(root, strict=True)


def test_a_class_of_copies_of_one_photo_is_named(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 1, "b": 3, "c": 1, "d": 2})
    for number in range(1, 4):
        _copy(root, f"a/{number}.png", "a/00.png")
        _copy(root, f"b/copy{number}.png", "b/00.png")  # it has others too
    _copy(root, "c/1.png", "a/00.png")  # not a class of copies of one
    _, said = _divide(root, val_fraction=0)
    assert [line for line in said if "are copies of one (" in line] == [
        "warning: class a: all training photos are copies of one (4 files), so nothing shows how "
        "it varies; add other photos"
    ]


def test_copies_of_one_photo_teach_nothing(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 1})
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        (root / name).parent.mkdir(exist_ok=True)
        _copy(root, name, "a/00.png")
    with refused(DataError, r"all 4 training photos are copies of one, .*png, so there is nothing"):
        _divide(root, val_fraction=0)


def test_photos_of_a_few_pixels_are_counted(tmp_path: Path) -> None:
    root = _folder(tmp_path / "set", {"a": 3, "b": 3, "c": 3})
    for label, kind in (("a", "png"), ("b", "jpg")):
        Image.effect_noise((10, 14), 40).convert("RGB").save(root / label / f"tiny.{kind}")
    made, said = _divide(root, val_fraction=0)
    assert len(made.train) == 11
    (line,) = said
    assert line.startswith(
        f"warning: 2 photos of less than 32 pixels on the short side, such as {root / 'a'}"
    )
