"""`--set NAME=VALUE`, the options of a method, for all commands that make a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fgdeploy.core.errors import UsageError

SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="An option of the method, such as stages=4:98,8:49,10:12 or stages=none (dense).",
    ),
]
WeightsKeyOption = Annotated[
    str | None,
    typer.Option(
        "--weights-key",
        metavar="NAME",
        help="Which network of a checkpoint that holds several, such as state_dict or "
        "teacher.backbone. Default: averaged weights (EMA) before raw ones.",
    ),
]
RenameOption = Annotated[
    list[str],
    typer.Option(
        "--rename",
        metavar="PATTERN=REPLACEMENT",
        help="A regular expression for names in the checkpoint and what to put in its place, such "
        r"as 'encoder\.(\d+)=blocks.\1'; several are applied in turn.",
    ),
]
# Names that these options had before.
StagesOption = Annotated[str | None, typer.Option("--stages", hidden=True)]
MaskOption = Annotated[bool, typer.Option("--transposed-mask", hidden=True)]


def parse(
    given: Sequence[str], stages: str | None = None, transposed_mask: bool = False
) -> dict[str, str]:
    """Return the texts by name. Raises UsageError for what is no NAME=VALUE or comes twice."""
    found: dict[str, str] = {}
    if stages is not None:
        found["stages"] = stages
    if transposed_mask:
        found["transposed_mask"] = "true"
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {text!r}: expected NAME=VALUE")
        if name.strip() == "stages" and stages is not None:
            raise UsageError("--set stages and --stages both give the stages; leave one out")
        if name.strip() in found:
            raise UsageError(f"--set {name.strip()}: given twice")
        found[name.strip()] = value
    return found
