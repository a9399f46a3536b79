"""A method's options: what is given, on top of what a checkpoint was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.progress import Notify
from fgdeploy.core.text import one_line
from fgdeploy.models.methods.base import Method
from fgdeploy.models.options import Options
from fgdeploy.models.weights.source import WeightSource
from fgdeploy.models.weights.told import Told
from fgdeploy.models.weights.trained import TrainedConfig


def choose(
    method: Method,
    texts: Mapping[str, str],
    source: WeightSource,
    config: TrainedConfig | None,
    told: Told | None,
    notify: Notify,
) -> Options:
    """Return the options that are meant; texts: by name, as `--set` gives them.

    config: what lies beside the checkpoint; told: what it says of itself. notify: told what a file
    says, what is given in its place, and what is taken where it says nothing. Raises UsageError,
    and CheckpointError for a text that the weights do not allow.
    """
    if config is not None:
        same = source.size == config.image_size
        trained = config.options if same else config.options.resized()
        options = method.options.parse(texts, trained)
        for name, text, before in _changed(texts, trained, options):
            notify(f"{source.name}: {name}={text} as given, trained with {before}")
        return options
    if told is None:
        return method.options.parse(texts)
    held = dataclasses.replace(method.options(), **told.options)
    _say(told, held, texts, source, notify)
    options = method.options.parse(texts, held)
    for name, given, before in _changed(texts, held, options):
        if name in told.open:
            continue
        if name in told.fixed:
            raise CheckpointError(
                f"--set {name}={given}: {source.name} was trained with {name}={before} and its "
                "weights hold to it; leave it out"
            )
        notify(f"{source.name}: {name}={given} as given, trained with {before}")
    return options


def _changed(
    texts: Mapping[str, str], before: Options, after: Options
) -> Iterator[tuple[str, str, str]]:
    """Yield each option that is given otherwise than it was: name, text, and what it was."""
    for name, text in texts.items():
        was = _shown(before, name)
        if _shown(after, name) != was:
            yield name, one_line(text, 80), was


def _say(
    told: Told, held: Options, texts: Mapping[str, str], source: WeightSource, notify: Notify
) -> None:
    words = [f"{name}={_shown(held, name)}" for name in told.options]
    notify(f"{source.name} was trained with {', '.join([source.backbone, *words])}")
    if left := [name for name in told.open if name not in texts]:
        taken = ", ".join(f"{name}={_shown(held, name)}" for name in left)
        notify(
            f"{source.name} does not tell how it was trained in all: {taken} is taken; pass "
            "--set NAME=VALUE where it was otherwise"
        )


def _shown(options: Options, name: str) -> str:
    """Return an option's value as `--set` would give it."""
    value = getattr(options, name)
    if value is None:
        return "as published"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
