"""Where tokens are pruned, and how many stay. Pure numbers: needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fgdeploy.core.errors import StageError, UsageError


@dataclass(frozen=True)
class Stage:
    """After `block` (1-based, as in the papers) the best `keep` patch tokens stay."""

    block: int
    keep: int

    def __str__(self) -> str:
        return f"{self.block}:{self.keep}"


@dataclass(frozen=True)
class Schedule:
    """A method's published pruning: (block of 12, fraction of all patches kept) per stage."""

    steps: tuple[tuple[int, float], ...]

    def stages(self, depth: int, patches: int) -> tuple[Stage, ...]:
        """Scale to a backbone of `depth` blocks and `patches` patch tokens.

        The counts are floor(patches * fraction): 98/49/12 of 196 (EET at 224). Blocks of other
        depths are scaled and rounded, so a 24-block ViT-L prunes twice as late.
        """
        scaled = (
            Stage(max(1, round(block * depth / 12)), max(1, int(patches * fraction)))
            for block, fraction in self.steps
        )
        return check(tuple(scaled), depth, patches)


def parse(text: str) -> tuple[Stage, ...]:
    """Read `4:98,8:49,10:12` (1-based block : tokens kept), or `none` for a dense model.

    Raises UsageError.
    """
    if text.strip().lower() == "none":
        return ()
    stages = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*:\s*([0-9]{1,9})\s*", part)
        if match is None:
            raise UsageError(
                f"stages {text!r}: expected BLOCK:TOKENS pairs such as 4:98,8:49,10:12, or none; "
                f"got {part.strip()!r}"
            )
        stages.append(Stage(int(match[1]), int(match[2])))
    return tuple(stages)


def check(stages: Sequence[Stage], depth: int, patches: int) -> tuple[Stage, ...]:
    """Return `stages` if a backbone can follow them, else raise StageError.

    Blocks must rise and end before the last block (after it only the CLS token is read); each
    stage must keep at least one token and not more than there are.
    """
    block, tokens = 0, patches
    for stage in stages:
        if not block < stage.block < depth:
            raise StageError(
                f"stage {stage}: expected a block above {block} and below {depth} "
                f"(the backbone has {depth} blocks, 1-based); change the stages"
            )
        if not 1 <= stage.keep <= tokens:
            raise StageError(
                f"stage {stage}: keeps {stage.keep} patch tokens, but {tokens} arrive there; "
                f"keep 1 to {tokens}"
            )
        block, tokens = stage.block, stage.keep
    return tuple(stages)
