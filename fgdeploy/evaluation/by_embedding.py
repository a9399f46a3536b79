"""Labelled photos, ranked by the cosine of their embeddings, each against all others.

closed-set      the photos of one split; training knew their classes, not the photos.
open-set        all photos of the classes that training did not know, whatever their split.

Both as in DVA's evaluation: every photo is a query, the gallery is the same photos without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fgdeploy.core.errors import BundleError, DataError, UsageError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted, shown
from fgdeploy.evaluation.cosine_recall import CosineScores, recall_by_cosine
from fgdeploy.evaluation.leaks import check_repeats
from fgdeploy.evaluation.metrics import Scores, evaluate
from fgdeploy.evaluation.targets import targets_of

if TYPE_CHECKING:
    from fgdeploy.hasher import Hasher
    from fgdeploy.photos import Photo

CLOSED_SET, OPEN_SET = SETS = ("closed-set", "open-set")
NOT_TRAINED, SECOND_HALF = UNSEEN = ("bundle", "second-half")


@dataclass(frozen=True)
class EmbeddingEvaluation:
    """Recall by cosine, and the scores of the same photos by their codes, for comparison.

    protocol: a name of SETS; words: what was ranked; classes: how many; skipped: photos that could
    not be read.
    """

    cosine: CosineScores
    code: Scores
    protocol: str
    words: str
    classes: int
    skipped: list[str]


def evaluate_embeddings(
    hasher: Hasher,
    photos: Sequence[Photo],
    protocol: str = CLOSED_SET,
    query_split: str = "test",
    unseen: str = NOT_TRAINED,
    strict: bool = False,
    progress: Progress = no_progress,
    allow_leaks: bool = False,
    notify: Notify = silent,
) -> EmbeddingEvaluation:
    """Hash photos and score their embeddings by one protocol.

    query_split: of closed-set; photos without splits are all taken. unseen, of open-set: "bundle",
    the classes that the bundle was not trained on, or "second-half", the last half of all classes
    in the order of their names. Raises UsageError for other words, BundleError without embeddings,
    DataError as `evaluate_photos`, and where no class is unseen or nobody knows.
    """
    from fgdeploy.hasher import hash_all  # here, so that scoring needs NumPy alone

    for what, word, known in (("protocol", protocol, SETS), ("unseen", unseen, UNSEEN)):
        if word not in known:
            raise UsageError(f"{what} {shown(word)}: expected {' or '.join(known)}")
    hasher.embedding_width  # noqa: B018  # refuse before hours of hashing
    chosen = _chosen(hasher, photos, protocol, query_split, unseen, notify)
    check_repeats(chosen, allow_leaks, notify)
    run = hash_all(hasher, chosen, strict, progress)
    if run.outputs.embedding is None:
        raise BundleError(f"{hasher.bundle.path} gave no embedding; export it again")
    labels = np.array([photo.label for photo in run.photos], np.str_)
    codes, classes = run.outputs.code, len(np.unique(labels))
    scores = recall_by_cosine(run.outputs.embedding, labels)
    return EmbeddingEvaluation(
        scores,
        evaluate(codes, labels, codes, labels, True),
        protocol,
        f"{protocol}: each of {counted(scores.queries, 'photo')} of {counted(classes, 'class')} "
        "against all others",
        classes,
        run.skipped,
    )


def _chosen(
    hasher: Hasher,
    photos: Sequence[Photo],
    protocol: str,
    query_split: str,
    unseen: str,
    notify: Notify,
) -> list[Photo]:
    """Return the photos that are ranked. Raises DataError."""
    from fgdeploy.photos import of_split

    if not photos:
        raise DataError("there are no photos to evaluate; check the list")
    if unlabelled := sum(photo.label is None for photo in photos):
        raise DataError(
            f"{counted(unlabelled, 'photo')} without a class; evaluation needs one for each"
        )
    if protocol == OPEN_SET:
        names = _unseen(hasher, sorted({photo.label or "" for photo in photos}), unseen, notify)
        chosen = [photo for photo in photos if photo.label in names]
    elif any(photo.split for photo in photos):
        chosen = list(of_split(photos, query_split))
    else:
        chosen = list(photos)
    if len({photo.label for photo in chosen}) < 2:
        raise DataError(
            f"{protocol}: all photos are of one class; every ranking is perfect, nothing to measure"
        )
    return chosen


def _unseen(hasher: Hasher, names: Sequence[str], unseen: str, notify: Notify) -> set[str]:
    """Return the classes, of all, that are unseen. names: all, sorted."""
    trained = set(hasher.manifest.classes)
    if not trained and (targets := targets_of(hasher.bundle)) is not None:
        trained = set(targets.classes.tolist())
    if unseen == SECOND_HALF:
        found = set(names[len(names) - len(names) // 2 :])
        if known := len(found & trained):
            notify(
                f"warning: the bundle was trained on {known} of these "
                f"{counted(len(found), 'class')}, so they are not unseen"
            )
        return found
    if not trained:
        raise DataError(
            f"{hasher.bundle.path} does not say which classes it was trained on; say which are "
            f"unseen: --unseen {SECOND_HALF}"
        )
    if not (found := set(names) - trained):
        raise DataError(
            f"open-set: the bundle was trained on all of {counted(len(names), 'class')} of these "
            "photos; give photos of others"
        )
    return found
