"""What a photo shows: the best classes by a bundle's class logits."""

from __future__ import annotations

from dataclasses import dataclass

from fgdeploy.bundle import Bundle
from fgdeploy.core import logits as scores
from fgdeploy.core.errors import BundleError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.engines import Outputs

K = 5  # classes of an answer, where nothing else is said


@dataclass(frozen=True)
class Guess:
    """One class that a photo may show: its rank from 1, its number from 0, its name.

    name: `class 17` where the bundle does not name its classes. probability: softmax of the logits,
    0..1, over all classes.
    """

    rank: int
    number: int
    name: str
    probability: float


def guesses(bundle: Bundle, outputs: Outputs, k: int = K) -> list[tuple[Guess, ...]]:
    """Return the k best classes (all, where there are fewer) of each photo, the best first.

    Equal scores stand by the number of the class. Raises what `check` raises, and EngineError for
    logits that are no numbers.
    """
    check(bundle, k)
    if outputs.logits is None:
        return []  # of no photo
    names = bundle.manifest.classes
    probable = scores.softmax(outputs.logits)
    return [
        tuple(
            Guess(rank, number, name_of(names, number), float(row[number]))
            for rank, number in enumerate(numbers, 1)
        )
        for numbers, row in zip(scores.best(outputs.logits, k).tolist(), probable, strict=True)
    ]


def check(bundle: Bundle, k: int) -> None:
    """Raise BundleError for a bundle without logits, UsageError unless k is at least 1."""
    if (as_whole(k) or 0) < 1:
        raise UsageError(f"expected at least one class, got {shown(k)}; give k=1")
    if "logits" not in bundle.manifest.outputs:
        raise BundleError(
            f"{bundle.path} gives no class logits; export it again with --logits, from weights "
            "with a class head"
        )


def name_of(names: tuple[str, ...], number: int) -> str:
    """Return what a class is called."""
    return names[number] if names else f"class {number}"
