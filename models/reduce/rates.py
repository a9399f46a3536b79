"""Keep rates and the blocks that they act in: read, checked, and expanded. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fgdeploy.core.errors import StageError, UsageError

# Of 12 blocks, numbered from 1: `--reduction_loc 3 6 9` of the authors, who count from 0.
PUBLISHED = (4, 7, 10)
_DEPTH = 12


def parse_rates(text: str) -> tuple[float, ...]:
    """Read `0.5`, or one rate a stage such as `0.7,0.5,0.3`. Raises UsageError."""
    rates = []
    for part in text.strip("[] ").split(","):
        try:
            rate = float(part)
        except ValueError:
            rate = math.nan
        if not 0 < rate <= 1:
            raise UsageError(
                f"--set keep_rate={text}: expected a number above 0 and up to 1, or one a stage "
                f"such as 0.7,0.5,0.3; got {part.strip()!r}"
            )
        rates.append(rate)
    return tuple(rates)


def parse_blocks(text: str) -> tuple[int, ...]:
    """Read `4,7,10`: the blocks, from 1, that reduce tokens. Raises UsageError."""
    parts = [part.strip() for part in text.strip("[] ").split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"--set blocks={text}: expected numbers of blocks from 1, such as 4,7,10")
    return tuple(int(part) for part in parts)


def default_blocks(depth: int) -> tuple[int, ...]:
    """Return the published blocks, scaled and rounded to another depth."""
    return tuple(max(1, round(block * depth / _DEPTH)) for block in PUBLISHED)


def check(rates: Sequence[float], blocks: Sequence[int], depth: int) -> None:
    """Raise StageError unless blocks rise, lie before the last, and have one rate or one each."""
    before = 0
    for block in blocks:
        if not before < block < depth:
            raise StageError(
                f"blocks {','.join(map(str, blocks))}: expected rising numbers from 1 to "
                f"{depth - 1}, got {block} (the backbone has {depth} blocks; behind the last only "
                "CLS is read)"
            )
        before = block
    if len(rates) not in (1, len(blocks)):
        raise StageError(
            f"{len(rates)} keep rates for {len(blocks)} blocks "
            f"({','.join(map(str, blocks))}); give one rate, or one for each block"
        )
