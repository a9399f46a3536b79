"""How often the class logits name a photo's class: among the first, and among the first five."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fgdeploy.core.logits import FloatArray, best
from fgdeploy.evaluation.metrics import Labels

FIVE = 5
NO_NAMES = (
    "the bundle does not name its classes, so labels cannot be compared; export it again with "
    "--class-names"
)


@dataclass(frozen=True)
class ClassAccuracy:
    """Shares of the photos of one class, as in `Accuracy`."""

    name: str
    queries: int
    top1: float
    top5: float | None


@dataclass(frozen=True)
class Accuracy:
    """Shares, 0..1, of the photos whose class is the best by its logit, or among the best five.

    queries: photos that were counted: those of a class that the model has. without_class: photos of
    others, which are left out. unknown: the labels of these. top5: None where the model has fewer
    than five classes. classes: a row for each label that was counted, by name.
    """

    queries: int
    top1: float
    top5: float | None
    without_class: int
    unknown: tuple[str, ...] = ()
    classes: tuple[ClassAccuracy, ...] = field(default=(), repr=False)


def measure_accuracy(logits: FloatArray, labels: Labels, names: Sequence[str]) -> Accuracy | str:
    """Hold logits (Q, C) to labels (Q,), texts among `names`, C of them, or say why that fails.

    Equal logits stand by the number of the class. Classes with one name count as one.
    Raises EngineError for logits that are no numbers.
    """
    if not names:
        return NO_NAMES
    known = np.isin(labels, np.array(names, dtype=np.str_))
    unknown = tuple(np.unique(labels[~known]).tolist())
    if not known.any():
        return (
            f"none of the photos' classes, such as {unknown[0]!r}, is one of the model's, such as "
            f"{names[0]!r}"
        )
    counted = labels[known]
    named = np.array(names, dtype=np.str_)[best(logits[known], FIVE)]
    right = named == counted[:, None]
    first, five = right[:, 0], right.any(axis=1) if logits.shape[1] >= FIVE else None
    return Accuracy(
        len(counted),
        float(first.mean()),
        None if five is None else float(five.mean()),
        int((~known).sum()),
        unknown,
        tuple(
            ClassAccuracy(
                str(name),
                int(rows.sum()),
                float(first[rows].mean()),
                None if five is None else float(five[rows].mean()),
            )
            for name in np.unique(counted)
            for rows in [counted == name]
        ),
    )
