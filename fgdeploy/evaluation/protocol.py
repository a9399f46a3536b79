"""Who asks whom: labelled photos, hashed and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fgdeploy.errors import DataError
from fgdeploy.evaluation.metrics import Scores
from fgdeploy.evaluation.metrics import evaluate as score
from fgdeploy.hasher import Hasher, HashRun, hash_all
from fgdeploy.photos import Photo, of_split


@dataclass(frozen=True)
class Evaluation:
    """Scores, who asked whom in words, and the photos that could not be read."""

    scores: Scores
    protocol: str
    skipped: list[str]


def evaluate_photos(
    hasher: Hasher,
    photos: Sequence[Photo],
    query_split: str = "test",
    gallery_split: str = "train",
    precision_at: Sequence[int] = (10,),
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Hash photos and score them: split against split, or each against all others if undivided.

    Raises DataError for photos without label, a single class, or a split that is not there.
    """
    if not photos:
        raise DataError("there are no photos to evaluate; check the list")
    if unlabelled := sum(photo.label is None for photo in photos):
        raise DataError(f"{unlabelled} photos have no class; evaluation needs one for each")
    if len({photo.label for photo in photos}) < 2:
        raise DataError("all photos are of one class; every ranking is perfect, nothing to measure")
    if not any(photo.split for photo in photos):
        run = hash_all(hasher, photos, strict, progress)
        names = _labels(run)
        codes = run.outputs.code
        scores = score(codes, names, codes, names, True, precision_at)
        return Evaluation(
            scores, f"each of {scores.queries} photos against all others", run.skipped
        )
    asking, asked = of_split(photos, query_split), of_split(photos, gallery_split)
    if query_split == gallery_split:
        raise DataError(f"queries and gallery are both {query_split!r}; choose two splits")
    run = hash_all(hasher, [*asking, *asked], strict, progress)
    cut = sum(photo.split == query_split for photo in run.photos)
    names, codes = _labels(run), run.outputs.code
    scores = score(codes[:cut], names[:cut], codes[cut:], names[cut:], False, precision_at)
    words = f"{scores.queries} {query_split} photos against {scores.gallery} {gallery_split} photos"
    return Evaluation(scores, words, run.skipped)


def _labels(run: HashRun) -> np.ndarray[tuple[int, ...], np.dtype[np.str_]]:
    return np.array([photo.label for photo in run.photos], dtype=np.str_)
