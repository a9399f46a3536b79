"""What to try next after a training: facts about it in, one sentence out, or none.

Each limit stands with its reason. The first rule that applies speaks, as each next one is only
sure where those before it do not apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fgdeploy.core.codes import hamming
from fgdeploy.core.text import counted
from fgdeploy.evaluation.protocol import ASYM_TARGETS
from fgdeploy.evaluation.targets import Targets
from fgdeploy.training.division import Division
from fgdeploy.training.fold_scores import FoldScores
from fgdeploy.training.outcome import LookBack
from fgdeploy.training.reached import Reached

# One bit in twenty wrong on photos that were trained on: 3 of 64, as far as good codes spread.
BITS_REACHED = 0.95
# Of the target codes' mAP lost to the photos' own: what a training that has settled stays below.
LARGEST_GAP = 0.15
# In the last quarter a cosine is below 15 % of the rate; a loss that falls so much there goes on.
STILL_FALLING = 0.05
# Against target codes every photo of a class has one code: below this most queries miss it.
QUERIES_NEAR = 0.6
# One class in ten whose code another nearly has costs as much as what other advice would win.
CROWDED_CLASSES = 0.1
# A mean over n queries of spread about 0.4 is known to 0.4 / sqrt(n): 4 points at 100.
FEW_QUERIES = 100


@dataclass(frozen=True)
class Facts:
    """What is known after a training.

    queries: photos held out; losses: of each epoch, which is `passes` over the photos; to_targets:
    mAP asym_targets, 0..1, None where nothing was held out; crowded: classes whose target code
    another class nearly has. reached: None without target codes. fewest: photos of the smallest
    class, in training and held out. folds: whether the scores are those of folds, which held out
    every photo.
    """

    classes: int
    bits: int
    fewest: int
    queries: int
    losses: Sequence[float]
    reached: Reached | None = None
    to_targets: float | None = None
    crowded: int = 0
    folds: bool = False
    passes: int = 1


def advise(facts: Facts) -> str | None:
    """Return what to try next, in one sentence, or None where nothing stands out."""
    rules: tuple[Callable[[Facts], str | None], ...] = (_steps, _bits, _photos, _capacity, _folds)
    return next((said for rule in rules if (said := rule(facts)) is not None), None)


def _steps(facts: Facts) -> str | None:
    found = facts.reached
    if found is None or found.bits_equal >= BITS_REACHED or not still_falling(facts.losses):
        return None
    epochs = len(facts.losses) * facts.passes
    return (
        f"the codes of the training photos are not learned yet ({found.bits_equal:.0%} of their "
        f"bits) and the loss still falls: train longer, with --epochs {2 * max(epochs, 1)}"
    )


def _bits(facts: Facts) -> str | None:
    if facts.crowded <= CROWDED_CLASSES * facts.classes:
        return None
    return (
        f"{counted(facts.crowded, 'class')} of {facts.classes:,} have nearly the target code of "
        f"another, as {facts.bits} bits are few for them: take more --bits"
    )


def _photos(facts: Facts) -> str | None:
    found, near = facts.reached, facts.to_targets
    if found is None or near is None or near >= QUERIES_NEAR or facts.queries < facts.classes:
        return None
    if found.bits_equal < BITS_REACHED:
        return None
    return (
        f"the training photos' codes are learned ({found.bits_equal:.0%} of their bits) but photos "
        f"that were held out miss them (asym_targets mAP {near:.2f}): add photos, or take fewer "
        "--bits"
    )


def _capacity(facts: Facts) -> str | None:
    found = facts.reached
    if found is None or found.gap is None or found.gap <= LARGEST_GAP:
        return None
    return (
        f"the training photos' own codes rank {found.gap:.0%} worse than their target codes and "
        "the loss has settled: take fewer --bits or a larger --backbone, or add photos"
    )


def _folds(facts: Facts) -> str | None:
    """Ask for folds where few queries decide; each fold holds out a photo of every class."""
    if facts.folds or not 0 < facts.queries < FEW_QUERIES or facts.fewest < 2:
        return None
    return (
        f"{counted(facts.queries, 'photo')} held out say little (about "
        f"{0.4 / facts.queries**0.5:.2f} of mAP either way): --folds {min(5, facts.fewest)} holds "
        "out each photo once"
    )


def still_falling(losses: Sequence[float]) -> bool:
    """Tell whether the loss of epochs fell over the last quarter; true where that says nothing."""
    if len(losses) < 4:
        return True
    before, last = losses[-1 - max(1, len(losses) // 4)], losses[-1]
    return before - last > STILL_FALLING * abs(before)


def crowded_classes(targets: Targets) -> int:
    """Return how many classes have a target code that another class has but for one bit in 16.

    A class whose photos have several codes stands by the majority of each bit.
    """
    signs = np.unpackbits(targets.codes, axis=1, count=targets.bits).astype(np.int64) * 2 - 1
    sums = np.zeros((len(targets.classes), targets.bits), np.int64)
    np.add.at(sums, targets.labels, signs)
    codes = np.packbits(sums >= 0, axis=1)
    distances = hamming(codes, codes).astype(np.int64)
    np.fill_diagonal(distances, targets.bits + 1)
    return int((distances.min(axis=1) <= targets.bits // 16).sum())


def gather(
    division: Division,
    targets: Targets | None,
    history: Sequence[Mapping[str, float]],
    found: LookBack,
    folds: FoldScores | None,
    passes: int = 1,
) -> Facts:
    """Return the facts of a training.

    folds: the scores of folds, where `found` has none; passes: over the photos in an epoch.
    """
    counts = Counter(photo.label for photo in (*division.train, *division.test))
    return Facts(
        classes=len(division.classes),
        bits=0 if targets is None else targets.bits,
        fewest=min(counts.values()),
        queries=len(division.test if folds is None else division.train),
        losses=[row["loss"] for row in history if "loss" in row],
        reached=found.reached,
        to_targets=found.map_of(ASYM_TARGETS, folds),
        crowded=0 if targets is None else crowded_classes(targets),
        folds=folds is not None,
        passes=passes,
    )
