"""Queries against galleries: labelled photos, hashed and scored by up to three protocols.

asym_targets    queries against the target codes of the training images; the EET paper's numbers.
                The labels of the training images enter the codes that are searched.
asym_sign       queries against the model's own codes of the training images; the headline.
symmetric       each query photo against all other query photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import DataError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.evaluation.accuracy import Accuracy, measure_accuracy
from fgdeploy.evaluation.leaks import check_repeats
from fgdeploy.evaluation.metrics import (
    RECALL_AT,
    Detail,
    Labels,
    Scores,
    evaluate_in_detail,
)
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets, targets_of

if TYPE_CHECKING:
    from fgdeploy.hasher import Hasher, HashRun
    from fgdeploy.photos import Photo

ACCURACY = "accuracy"
ASYM_TARGETS, ASYM_SIGN, SYMMETRIC = "asym_targets", "asym_sign", "symmetric"
PROTOCOLS = (ASYM_TARGETS, ASYM_SIGN, SYMMETRIC)


@dataclass(frozen=True)
class Evaluation:
    """Scores by protocol, the headline in words, and the photos that could not be read.

    protocol: those words. absent: why a protocol is not among `protocols`, or why there is no
    `accuracy` although the bundle has class logits. accuracy: of the queries.
    """

    protocols: Mapping[str, Detail]
    protocol: str
    skipped: list[str]
    absent: Mapping[str, str]
    accuracy: Accuracy | None = None

    @property
    def scores(self) -> Scores:
        """Return the headline: asym_sign, or symmetric where photos are not divided."""
        return self.protocols[ASYM_SIGN if ASYM_SIGN in self.protocols else SYMMETRIC].scores


def score_protocols(
    query_codes: UInt8Array,
    query_labels: Labels,
    gallery_codes: UInt8Array,
    gallery_labels: Labels,
    targets: Targets | None,
    precision_at: Sequence[int] = (10,),
    bits: int | None = None,
    threads: int | None = None,
    recall_at: Sequence[int] = RECALL_AT,
) -> dict[str, Detail]:
    """Score queries (Q, bytes) by every protocol that can be measured, by name, as in PROTOCOLS.

    gallery: the model's codes of the training images. Left out is what `why_absent` names. Other
    arguments and errors as in `evaluate_in_detail`.
    """
    absent = why_absent(query_labels, targets)
    queries = (query_codes, query_labels)
    sides = {ASYM_SIGN: (gallery_codes, gallery_labels), SYMMETRIC: queries}
    if targets is not None:
        sides[ASYM_TARGETS] = (targets.codes, targets.names)
    return {
        name: evaluate_in_detail(
            *queries, *sides[name], name == SYMMETRIC, precision_at, bits, threads, recall_at
        )
        for name in PROTOCOLS
        if name not in absent
    }


def why_absent(query_labels: Labels, targets: Targets | None) -> dict[str, str]:
    """Return why protocols cannot be measured for such queries, by name; none if all can."""
    reasons = {}
    if targets is None:
        reasons[ASYM_TARGETS] = f"the model brings no target codes ({TARGETS_FILE})"
    elif not np.isin(targets.classes, query_labels).any():
        reasons[ASYM_TARGETS] = (
            f"none of the {counted(len(targets.classes), 'class')} in {TARGETS_FILE} is one "
            "of the queries'"
        )
    if len(query_labels) < 2:
        reasons[SYMMETRIC] = "there is a single query photo"
    return reasons


def evaluate_photos(
    hasher: Hasher,
    photos: Sequence[Photo],
    query_split: str = "test",
    gallery_split: str = "train",
    precision_at: Sequence[int] = (10,),
    strict: bool = False,
    progress: Progress = no_progress,
    threads: int | None = None,
    allow_leaks: bool = False,
    notify: Notify = silent,
) -> Evaluation:
    """Hash photos and score them: split against split, or each against all others if undivided.

    threads: for the ranking, as in `evaluate_in_detail`. allow_leaks: measure although photos are
    queries and gallery at once, by path or content. notify: told of those, and of photos with two
    labels. Raises DataError for such leaks, photos without label, a single class, a split that is
    not there, or a bundle with damaged target codes.
    """
    hashed = hash_sides(
        hasher, photos, query_split, gallery_split, strict, progress, allow_leaks, notify
    )
    return score_sides(hasher, hashed, precision_at, threads)


@dataclass(frozen=True)
class Sides:
    """Photos of an evaluation, hashed: the first `cut` of them ask, the others are the gallery.

    undivided: they have no splits; all of them ask, each all others. skipped: why photos were left
    out. splits: names of queries and gallery.
    """

    run: HashRun
    cut: int
    undivided: bool
    skipped: list[str]
    splits: tuple[str, str]

    @property
    def queries(self) -> tuple[UInt8Array, Labels]:
        """Return codes (Q, bytes) and labels (Q,) of those that ask."""
        return self.run.outputs.code[: self.cut], _labels(self.run)[: self.cut]

    @property
    def gallery(self) -> tuple[UInt8Array, Labels]:
        """Return codes and labels of the gallery: where photos are undivided, of all."""
        begin = 0 if self.undivided else self.cut
        return self.run.outputs.code[begin:], _labels(self.run)[begin:]


def hash_sides(
    hasher: Hasher,
    photos: Sequence[Photo],
    query_split: str = "test",
    gallery_split: str = "train",
    strict: bool = False,
    progress: Progress = no_progress,
    allow_leaks: bool = False,
    notify: Notify = silent,
) -> Sides:
    """Hash queries and gallery; arguments and errors as in `evaluate_photos`."""
    # Here, so that scoring codes needs NumPy alone
    from fgdeploy.hasher import hash_all
    from fgdeploy.photos import of_split, skipped_of

    if not photos:
        raise DataError("there are no photos to evaluate; check the list")
    if unlabelled := sum(photo.label is None for photo in photos):
        raise DataError(
            f"{counted(unlabelled, 'photo')} without a class; evaluation needs one for each"
        )
    if len({photo.label for photo in photos}) < 2:
        raise DataError("all photos are of one class; every ranking is perfect, nothing to measure")
    splits = query_split, gallery_split
    if not any(photo.split for photo in photos):
        check_repeats(photos, allow_leaks, notify)
        run = hash_all(hasher, photos, strict, progress)
        return Sides(run, len(run.photos), True, run.skipped, splits)
    sides = of_split(photos, query_split), of_split(photos, gallery_split)
    if query_split == gallery_split:
        raise DataError(f"queries and gallery are both {query_split!r}; choose two splits")
    check_repeats([*sides[0], *sides[1]], allow_leaks, notify)
    targets_of(hasher.bundle)  # damaged ones are refused before hours of hashing
    run = hash_all(hasher, [*sides[0], *sides[1]], strict, progress)
    cut = sum(photo.split == query_split for photo in run.photos)
    return Sides(run, cut, False, [*skipped_of(photos), *run.skipped], splits)


def score_sides(
    hasher: Hasher,
    sides: Sides,
    precision_at: Sequence[int] = (10,),
    threads: int | None = None,
    recall_at: Sequence[int] = RECALL_AT,
) -> Evaluation:
    """Score what `hash_sides` gave, by every protocol that can be measured."""
    accuracy, why = _accuracy(hasher, sides.run, sides.cut)
    codes, names = sides.queries
    if sides.undivided:
        detail = evaluate_in_detail(
            codes, names, codes, names, True, precision_at, hasher.bits, threads, recall_at
        )
        words = f"each of {counted(detail.scores.queries, 'photo')} against all others"
        return Evaluation({SYMMETRIC: detail}, words, sides.skipped, why, accuracy)
    targets = targets_of(hasher.bundle)
    protocols = score_protocols(
        codes, names, *sides.gallery, targets, precision_at, hasher.bits, threads, recall_at
    )
    query_split, gallery_split = sides.splits
    rest = len(sides.run.photos) - sides.cut
    words = f"{sides.cut} {query_split} photos against {rest} {gallery_split} photos"
    absent = why_absent(names, targets) | why
    return Evaluation(protocols, words, sides.skipped, absent, accuracy)


def _accuracy(hasher: Hasher, run: HashRun, cut: int) -> tuple[Accuracy | None, dict[str, str]]:
    """Return the accuracy of the first `cut` photos, or why there is none; neither without logits.

    A name of `classes` stands for a label.
    """
    if run.outputs.logits is None:
        return None, {}
    labels, names = _labels(run)[:cut], hasher.manifest.classes
    found = measure_accuracy(run.outputs.logits[:cut], labels, names)
    return (None, {ACCURACY: found}) if isinstance(found, str) else (found, {})


def _labels(run: HashRun) -> Labels:
    return np.array([photo.label for photo in run.photos], dtype=np.str_)
