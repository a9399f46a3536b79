"""Folds: who is held out when, what a training of folds leaves, how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import CheckpointError, DataError, UsageError
from fgdeploy.models.weights.trained import load_config
from fgdeploy.photos import Photo, read
from fgdeploy.training.folds import assign_folds, train_folds
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make
from tests.training.weights import same_weights


def _photos(root: Path, **counts: int) -> list[Photo]:
    """Return photos of classes, each of its own content."""
    made = []
    for label, count in counts.items():
        for index in range(count):
            path = root / f"{label}{index}.png"
            pixels = np.random.default_rng(len(made)).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path)
            made.append(Photo(path, label))
    return made


def test_each_photo_is_held_out_once_and_each_class_in_every_fold(tmp_path: Path) -> None:
    usable = _photos(tmp_path, a=7, b=3, c=4)
    numbers = assign_folds(usable, 3, 0, "set")
    assert sorted(Counter(numbers.tolist()).values()) == [4, 5, 5]
    for label in "abc":
        rows = [row for row, photo in enumerate(usable) if photo.label == label]
        own = Counter(numbers[rows].tolist())
        assert own.keys() == {0, 1, 2} and max(own.values()) - min(own.values()) <= 1
    assert np.array_equal(numbers, assign_folds(usable, 3, 0, "set"))
    assert not np.array_equal(numbers, assign_folds(usable, 3, 1, "set"))
    turned = assign_folds(usable[::-1], 3, 0, "set")  # the order of the list decides nothing
    assert np.array_equal(numbers, turned[::-1])


def test_copies_are_in_one_fold(tmp_path: Path) -> None:
    usable = _photos(tmp_path, a=6, b=6)
    for index in range(4):
        path = tmp_path / f"copy{index}.png"
        shutil.copy(usable[0].path, path)
        usable.append(Photo(path, "b" if index == 3 else "a"))  # one under a wrong class
    for seed in range(5):
        numbers = assign_folds(usable, 6, seed, "set")
        assert len({int(numbers[row]) for row in (0, 12, 13, 14, 15)}) == 1


def test_more_folds_than_photos_of_a_class_are_refused(tmp_path: Path) -> None:
    usable = _photos(tmp_path, a=6, b=3)
    with refused(DataError, "--folds 4: class b has 3 photos that .*; take --folds 3 or fewer"):
        assign_folds(usable, 4, 0, "set")
    shutil.copy(usable[6].path, tmp_path / "copy.png")
    usable.append(Photo(tmp_path / "copy.png", "b"))  # says no more than the photo does
    with refused(DataError, "class b has 3 photos"):
        assign_folds(usable, 4, 0, "set")
    with refused(DataError, "class b has 1 photo, and .* leave the class out"):
        assign_folds(usable[:7], 2, 0, "set")
    with refused(DataError, "two classes or more, got 1"):
        assign_folds(usable[:6], 2, 0, "set")
    with refused(UsageError, "--folds 2: set says itself which photos train"):
        assign_folds([Photo(usable[0].path, "a", "train"), *usable], 2, 0, "set")


@pytest.fixture(scope="module")
def undivided(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn photos, four of each class, without splits."""
    root = tmp_path_factory.mktemp("undivided") / "photos"
    shutil.copytree(drawn.parent, root)
    (root / "split.csv").unlink()
    for path in root.glob("*/*.jpg"):
        if int(path.stem) >= 4:
            path.unlink()
    return root


def _stop_in(part: str) -> Reporter:
    """Return a reporter that presses Ctrl-C at the first step of a part of the training."""
    said: list[str] = []

    def tick(tick: Tick) -> None:
        if any(line.startswith(part) for line in said):
            os.kill(os.getpid(), signal.SIGINT)

    return Reporter(notify=said.append, tick=tick)


def test_a_training_of_folds_goes_on_after_any_end(
    small: Make, undivided: Path, tmp_path: Path
) -> None:
    settings = small(data=undivided, epochs=1)
    whole = train_folds(settings, 2, tmp_path / "whole")
    for resume, part in ((False, "fold 2 of 2: "), (True, "all 12 photos: ")):
        with pytest.raises(KeyboardInterrupt):
            train_folds(settings, 2, tmp_path / "run", resume, False, _stop_in(part))
    said: list[str] = []
    last = Reporter(notify=said.append)
    again = train_folds(settings, 2, tmp_path / "run", True, False, last)
    assert not [line for line in said if line.startswith("fold ")]
    assert same_weights(whole.weights, again.weights)
    assert again.folds == whole.folds and again.folds is not None
    _check_left(tmp_path / "run", undivided, again.folds.to_json()["protocols"])
    finished = train_folds(settings, 2, tmp_path / "run", True, False, last)
    assert said[-1].endswith("is finished already; nothing left to train")
    assert finished.folds == again.folds and finished.advice == again.advice
    with refused(CheckpointError, "is of folds with other settings"):
        train_folds(small(data=undivided, epochs=2), 2, tmp_path / "run", resume=True)
    with refused(CheckpointError, "holds a run already"):
        train_folds(settings, 2, tmp_path / "run")
    train(settings, tmp_path / "run", overwrite=True)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith("fold")]


def _check_left(run: Path, source: Path, protocols: dict[str, dict[str, dict[str, float]]]) -> None:
    """Check that every photo was held out once, and that the folds' scores are averaged."""
    held: list[Path] = []
    maps: dict[str, list[float]] = {}
    for fold in (1, 2):
        folder = run / f"fold-{fold}"
        assert not list(folder.glob("*.safetensors")) and not (folder / "targets.npz").exists()
        held += [photo.path for photo in read(folder / "split.csv") if photo.split == "test"]
        scores = json.loads((folder / "scores.json").read_text())["student"]
        for name, found in scores.items():
            maps.setdefault(name, []).append(found["map"])
    assert Counter(held) == Counter(photo.path.resolve() for photo in read(source))
    assert maps.keys() == protocols.keys() == {"asym_targets", "asym_sign", "symmetric"}
    for name, values in maps.items():
        assert protocols[name]["map"]["mean"] == pytest.approx(statistics.fmean(values))
        assert protocols[name]["map"]["spread"] == pytest.approx(statistics.stdev(values))
    gap = json.loads((run / "scores.json").read_text())["training_photos"]["student"]["gap"]
    means = [protocols[name]["map"]["mean"] for name in ("asym_targets", "asym_sign")]
    assert gap == pytest.approx(1 - means[1] / means[0])
    config = load_config(run / "model.safetensors")
    assert config is not None and config.training["folds"] == 2
    assert config.training["photos"] == 12
    assert config.training["scores"]["symmetric"] == protocols["symmetric"]["map"]["mean"]


@pytest.mark.parametrize(
    "changes,count,words",
    [
        ({"val_fraction": 0.2}, 2, "--val-fraction has no meaning"),
        ({}, 1, "--folds 1: expected 2 or more"),
        ({"recipe": "none"}, 2, "choose fast, paper"),
        ({"weights": "nowhere.pth"}, 2, "no such file"),
    ],
)
def test_what_folds_refuse_leaves_nothing(
    small: Make, undivided: Path, tmp_path: Path, changes: dict[str, object], count: int, words: str
) -> None:
    with refused(UsageError, words):
        train_folds(small(**{"data": undivided, **changes}), count, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plain_run_is_not_resumed_with_folds(
    small: Make, undivided: Path, tmp_path: Path
) -> None:
    train(small(data=undivided, epochs=1), tmp_path / "run")
    with refused(CheckpointError, "is no training of folds; leave --folds out"):
        train_folds(small(data=undivided, epochs=1), 2, tmp_path / "run", resume=True)
