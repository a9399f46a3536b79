"""Numbers as people write them: ASCII digits, within what every part of the program can hold."""

from __future__ import annotations

import math
import operator
import re

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown

MOST_WHOLE = 2**63 - 1  # as the database, NumPy and the engines hold them

# No +5, 1_000, -0, spaces or digits of other scripts, which int() and float() take.
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_REAL = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_DIGITS = 400  # more are no number that anyone means, and int() refuses from 4,300 on


def whole(text: str, name: str, least: int = 0, most: int = MOST_WHOLE) -> int:
    """Return the whole number that `text` is.

    name: what it is for, such as `--batch`. Raises UsageError for other texts, and below `least`
    or above `most`.
    """
    within = _range(least, most)
    if _WHOLE.fullmatch(text):
        value = int(text) if len(text) <= _DIGITS else most + 1
        if least <= value <= most and not _negative_zero(text, value):
            return value
        if value > most:
            within = f"from {least} to {most}"
    raise UsageError(f"{name} {shown(text)}: expected a whole number {within}")


def wholes(text: str, name: str, least: int = 0, most: int = MOST_WHOLE) -> tuple[int, ...]:
    """Return whole numbers with commas between. The rest: as in `whole`."""
    return tuple(whole(part, name, least, most) for part in text.replace(" ", "").split(","))


def real(text: str, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    """Return the finite number that `text` is. name and Raises: as in `whole`."""
    if _REAL.fullmatch(text) and len(text) <= _DIGITS:
        value = float(text)
        vanished = value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
        within = least <= value <= most and math.isfinite(value)
        if within and not vanished and not _negative_zero(text, value):
            return value
    raise UsageError(
        f"{name} {shown(text)}: expected a finite number {_range(least, most)}".rstrip()
    )


def as_whole(value: object) -> int | None:
    """Return a whole number, of NumPy too, as an int; None for a bool, text, 2.0 or a list."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _negative_zero(text: str, value: float) -> bool:
    return value == 0 and text.startswith("-")


def _range(least: float, most: float) -> str:
    if most in (MOST_WHOLE, math.inf):
        return "" if math.isinf(least) else f"of {_shown(least)} or more"
    return f"from {_shown(least)} to {_shown(most)}"


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
