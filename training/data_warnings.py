"""What is odd about the photos of a training, in words: each line says what to do next.

Facts in, lines out, none for photos that are as they should be. What nothing can be learnt from is
an error where it is found (`division`, `lookalikes`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fgdeploy.core.text import counted

SMALL_SIDE = 32  # pixels of a short side below which little can be seen
_UNEVEN = 20  # times the photos of the smallest class that the largest may have


def of_counts(train: Mapping[str, int], test: Mapping[str, int]) -> list[str]:
    """Return what is odd about the numbers of photos by class, in training and test.

    train has two classes or more; a class that has no photos is not in it.
    """
    single = sorted(name for name, count in train.items() if count == 1)
    unasked = sorted(name for name in train if test and name not in test)
    lines = [] if len(train) > 2 else [_two(sorted(train))]
    lines += _single(single, set(single) & set(unasked), len(train))
    if rest := [name for name in unasked if name not in single]:
        lines.append(
            f"{named(rest)}: photos to train on but none to test, so the scores say nothing of "
            f"{'it' if len(rest) == 1 else 'them'}; add test photos"
        )
    if foreign := sorted(test.keys() - train.keys()):
        lines.append(
            f"{named(foreign)}: photos to test but none to train on; they stay in the evaluation, "
            "where they have no target code and count as 0 against training photos; check the "
            "class and split of each photo"
        )
    return [f"warning: {line}" for line in [*lines, *_uneven(train)]]


def _two(names: Sequence[str]) -> str:
    return (
        f"two classes alone, {' and '.join(names)}: their target codes are opposite in every bit, "
        "so a code tells no more than one bit would; add classes, if you have some"
    )


def _single(names: Sequence[str], unasked: Collection[str], classes: int) -> list[str]:
    if not names:
        return []
    who = "every class" if len(names) == classes else named(names)
    held = ""
    if unasked:
        held = f", and {counted(len(unasked), 'class')} of these cannot be tested"
    return [f"{who}: one training photo only, so nothing shows how it varies{held}; add photos"]


def _uneven(train: Mapping[str, int]) -> list[str]:
    most = max(sorted(train), key=train.__getitem__)
    least = min(sorted(train), key=train.__getitem__)
    if train[most] < _UNEVEN * train[least]:
        return []
    return [
        f"class {most} has {counted(train[most], 'training photo')} and class {least} "
        f"{train[least]:,}: classes with few photos are learned worse than the mean score says; "
        "add photos of these (scores by class: per_class.csv)"
    ]


def of_copies(copied: Mapping[str, int]) -> list[str]:
    """Return a line on classes whose training photos are copies of one.

    copied: how many there are, by class.
    """
    if not copied:
        return []
    names = sorted(copied)
    return [
        f"warning: {named(names)}: all training photos are copies of one "
        f"({counted(sum(copied.values()), 'file')}), so nothing shows how "
        f"{'it varies' if len(names) == 1 else 'they vary'}; add other photos"
    ]


def of_small(paths: Sequence[str]) -> list[str]:
    """Return a line on photos whose short side has less than SMALL_SIDE pixels."""
    if not paths:
        return []
    return [
        f"warning: {counted(len(paths), 'photo')} of less than {SMALL_SIDE} pixels on the short "
        f"side, such as {paths[0]}: they are scaled up and show little; give larger ones"
    ]


def of_twins(pairs: Collection[tuple[str, str, str, str]], photos: int) -> list[str]:
    """Return a line on photos that the network cannot tell from photos of another class.

    pairs: (path, class, path, class) of some; photos: how many there are in all.
    """
    if not pairs:
        return []
    shown = "; ".join(f"{one} ({a}) and {two} ({b})" for one, a, two, b in list(pairs)[:3])
    return [
        f"warning: {counted(photos, 'training photo')} cannot be told from photos of another "
        f"class, as the network sees the same in both: {shown}; one class of each pair may be wrong"
    ]


def named(names: Sequence[str]) -> str:
    """Return the first three of some classes by name, and how many more there are."""
    shown = ", ".join(names[:3])
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{rest}"
