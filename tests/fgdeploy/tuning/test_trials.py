"""Which photos judge, and what their embeddings score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.photos import Photo, read
from fgdeploy.tuning.trials import Judges, Trials, mean_of_fits
from fgdeploy.tuning.tune_settings import TuneSettings
from tests.checks import refused


def listed(count: int, splits: bool = False, classes: int = 2) -> list[Photo]:
    return [
        Photo(
            Path(f"{number}.jpg"),
            f"kind {number % classes}",
            (("train", "test")[number // classes % 2] if splits else None),
        )
        for number in range(count)
    ]


def test_queries_and_gallery_by_split() -> None:
    judges = Judges.of(listed(40, splits=True))
    assert (len(judges.queries), len(judges.gallery)) == (20, 20)
    some = judges.some(16, seed=0)
    assert (len(some.queries), len(some.gallery), some.count) == (8, 8, 16)
    assert len({photo.label for photo in some.queries}) == 2


def test_without_splits_each_against_all_others() -> None:
    judges = Judges.of(listed(40))
    assert (len(judges.queries), judges.gallery) == (40, ())
    assert judges.some(10, 0).count == 10


@pytest.mark.parametrize(
    ("photos", "words"),
    [
        ([Photo(Path("a.jpg"))] * 20, "20 photos without a class; tuning measures retrieval"),
        (listed(7), "7 photos: too few to measure what a schedule costs; expected 8 or more"),
        (listed(14, splits=True), "photos and . photos: too few"),
        (listed(20, classes=1), "all queries are of one class"),
    ],
)
def test_photos_that_cannot_judge(photos: list[Photo], words: str) -> None:
    with refused(DataError, words):
        Judges.of(photos)


def test_embeddings_that_tell_classes_apart_score_better() -> None:
    chooser = np.random.default_rng(0)
    labels = np.array([f"{number % 4}" for number in range(40)])
    centres = chooser.standard_normal((4, 16))[np.arange(40) % 4]
    good, bad = (
        mean_of_fits(
            *[((centres + noise * chooser.standard_normal((40, 16))), labels)] * 2, True, 16, 0
        )
        for noise in (0.1, 3.0)
    )
    assert good > 0.95 > bad


def test_networks_are_scored_with_their_options(photos: Path) -> None:
    settings = TuneSettings(
        photos, 5.0, backbone="test_vit", weights="random", image_size=64, bits=16
    )
    trials = Trials(settings)
    assert trials.judges.count == len(read(photos))
    scores = {
        stages: trials.score({"stages": stages}, 400) for stages in ("none", "1:16", "1:1", "none")
    }
    assert scores["1:16"] == pytest.approx(scores["none"])  # keeps all
    assert scores["1:1"] != scores["none"]
    assert all(0 < score <= 1 for score in scores.values())
