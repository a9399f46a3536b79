"""What every command gets without saying so, from the walk over all of them that `equip` is.

- `--quiet`, and `--csv` where there is `--json`;
- numbers are exact and bounded (`min` and `max` of an option, else 0 to 2^63 - 1);
- "Default: X." at the end of a help text is shown as Typer shows defaults: [default: X];
- the shell completes what `completing` knows by an option's name or the word for its value.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.models import OptionInfo, ParameterInfo

from fgdeploy.cli import completing, show
from fgdeploy.core import numbers
from fgdeploy.core.errors import UsageError

_QUIET = typer.Option("--quiet", "-q", help="Say nothing but errors and the answer.")
_CSV = typer.Option("--csv", help="Print CSV instead of a table.")
_SAID = "Default: "


def equip(app: typer.Typer) -> None:
    """Equip all commands of an application and of the groups in it."""
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _equipped(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            equip(group.typer_instance)


def _equipped(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that reads its numbers exactly, and knows --quiet and --csv."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [_improved(parameter) for parameter in signature.parameters.values()]
    added = {"quiet": _QUIET} | ({"as_csv": _CSV} if "as_json" in signature.parameters else {})
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, info]
        )
        for name, info in added.items()
    ]

    @functools.wraps(function)
    def command(*, quiet: bool, as_csv: bool = False, **given: Any) -> None:
        if as_csv and given["as_json"]:
            raise UsageError("--json and --csv are two forms of one answer; give one of them")
        show.choose_manner(quiet, as_csv)
        function(**given)

    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _improved(parameter: inspect.Parameter) -> inspect.Parameter:
    kind, *extras = typing.get_args(parameter.annotation) or [parameter.annotation]
    infos = [extra for extra in extras if isinstance(extra, ParameterInfo)]
    if typing.get_origin(parameter.annotation) is not Annotated or not infos:
        return parameter
    info = copy.copy(infos[0])  # one may serve several commands
    name = _spelled(info, parameter.name)
    info.autocompletion = completing.WAYS.get(name) or completing.WAYS.get(info.metavar or "")
    parse = _PARSERS.get(_base(kind))
    if parse is not None:
        info.parser = parse(name, info.min, info.max)
        info.metavar = info.metavar or ("N" if _base(kind) is int else "X")
    before, said, default = (info.help or "").rpartition(_SAID)
    if said:
        info.help = f"{before.rstrip()}  [default: {default.rstrip('.')}]"
        info.show_default = False
    return parameter.replace(annotation=Annotated[kind, info])


def _spelled(info: ParameterInfo, name: str) -> str:
    """Return how a parameter is called on the command line: its longest option, or its word."""
    if not isinstance(info, OptionInfo):
        return info.metavar or name.upper()
    # Within Annotated, Typer keeps the first name where the default would be.
    declared = [info.default, *(info.param_decls or ())]
    given = [text for text in declared if isinstance(text, str) and text.startswith("-")]
    return max(given, key=len, default="--" + name.strip("_").replace("_", "-"))


def _base(kind: Any) -> Any:
    """Return what is given once: int for `int | None` and `list[int]`."""
    while typing.get_origin(kind) in (typing.Union, types.UnionType, list):
        kind = next(one for one in typing.get_args(kind) if one is not type(None))
    return kind


def _whole(name: str, least: float | None, most: float | None) -> Callable[[Any], Any]:
    low = 0 if least is None else int(least)
    high = numbers.MOST_WHOLE if most is None else int(most)
    return lambda text: numbers.whole(text, name, low, high) if isinstance(text, str) else text


def _real(name: str, least: float | None, most: float | None) -> Callable[[Any], Any]:
    low = -math.inf if least is None else least
    high = math.inf if most is None else most
    return lambda text: numbers.real(text, name, low, high) if isinstance(text, str) else text


_PARSERS = {int: _whole, float: _real}
