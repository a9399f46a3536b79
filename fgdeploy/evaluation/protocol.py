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
from fgdeploy.evaluation.metrics import Detail, Labels, Scores, evaluate_in_detail
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
            *queries, *sides[name], name == SYMMETRIC, precision_at, bits, threads
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
    left_out = skipped_of(photos)
    if not any(photo.split for photo in photos):
        check_repeats(photos, allow_leaks, notify)
        run = hash_all(hasher, photos, strict, progress)
        side = (run.outputs.code, _labels(run))
        detail = evaluate_in_detail(*side, *side, True, precision_at, hasher.bits, threads)
        words = f"each of {counted(detail.scores.queries, 'photo')} against all others"
        accuracy, why = _accuracy(hasher, run, len(run.photos))
        return Evaluation({SYMMETRIC: detail}, words, run.skipped, why, accuracy)
    sides = of_split(photos, query_split), of_split(photos, gallery_split)
    if query_split == gallery_split:
        raise DataError(f"queries and gallery are both {query_split!r}; choose two splits")
    check_repeats([*sides[0], *sides[1]], allow_leaks, notify)
    targets = targets_of(hasher.bundle)
    run = hash_all(hasher, [*sides[0], *sides[1]], strict, progress)
    cut = sum(photo.split == query_split for photo in run.photos)
    names, codes = _labels(run), run.outputs.code
    queries, gallery = (codes[:cut], names[:cut]), (codes[cut:], names[cut:])
    protocols = score_protocols(*queries, *gallery, targets, precision_at, hasher.bits, threads)
    words = f"{cut} {query_split} photos against {len(codes) - cut} {gallery_split} photos"
    accuracy, why = _accuracy(hasher, run, cut)
    absent = why_absent(names[:cut], targets) | why
    return Evaluation(protocols, words, [*left_out, *run.skipped], absent, accuracy)


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
