"""A user's own patterns for the names in a checkpoint: `--rename 'PATTERN=REPLACEMENT'`.

Patterns are regular expressions of Python's `re`. They run in a process of their own and for a
limited time: some need ages for one name, and a bundle brings those that it was exported with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.weights import substitute

LIMIT_S = 10.0
_LONGEST, _MOST = 500, 100  # characters of a text; patterns
_DEEPEST = 7  # mappings in mappings
_SHOWN = 3  # names in a message


def applied(content: Any, texts: Sequence[str], name: str) -> Any:
    """Return what a file `name` holds with the names of its tensors replaced, in the order given.

    A name is that in the innermost mapping. Raises UsageError for what is no pattern,
    CheckpointError for a pattern that fits no name or gives two tensors one name.
    """
    if not texts:
        return content
    pairs = [_pair(text) for text in texts]
    if len(texts) > _MOST:
        raise UsageError(f"--rename: given {len(texts)} times, expected {_MOST} at most")
    names = sorted({one for held in _groups(content) for one in held})
    answer = _answer(pairs, names, name)
    if "reason" in answer:
        raise UsageError(
            f"--rename {texts[answer['pattern']]!r}: {answer['reason']}; expected a regular "
            "expression of Python's and what to put in its place"
        )
    for text, count in zip(texts, answer["fits"], strict=True):
        if not count:
            raise CheckpointError(
                f"--rename {text!r}: fits no name in {name}, whose first names are "
                f"{', '.join(names[:_SHOWN]) or 'none'}"
            )
    return _with(content, dict(zip(names, answer["names"], strict=True)))


def _pair(text: str) -> tuple[str, str]:
    """Return pattern and replacement; patterns may hold an equals sign, names do not."""
    pattern, equals, replacement = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--rename {text!r}: expected PATTERN=REPLACEMENT")
    if len(text) > _LONGEST:
        raise UsageError(f"--rename {text!r}: expected {_LONGEST} characters at most")
    return pattern, replacement


def _answer(pairs: Sequence[tuple[str, str]], names: Sequence[str], name: str) -> dict[str, Any]:
    long = [one for one in names if len(one) > substitute.LONGEST]
    if long:
        raise CheckpointError(f"{name} holds a name of {len(long[0])} characters: {long[0]}")
    try:
        done = subprocess.run(
            [sys.executable or "python", "-I", substitute.__file__],
            input=json.dumps({"pairs": pairs, "names": names}),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise UsageError(
            f"--rename {', '.join(map('='.join, pairs))!r}: not done with the names in {name} "
            f"after {LIMIT_S:g} s; use a pattern without repeats inside repeats"
        ) from None
    except OSError as error:
        raise UsageError(
            f"--rename runs in a process of its own, which did not start: {error}; rename the "
            "tensors yourself and save them"
        ) from None
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _groups(content: Any, depth: int = 0) -> Iterator[list[str]]:
    """Yield the names of the tensors of each mapping."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    yield [k for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)]
    for value in content.values():
        yield from _groups(value, depth + 1)


def _with(content: Any, new: Mapping[str, str], depth: int = 0) -> Any:
    """Return the same content with other names of tensors."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return content
    found: dict[Any, Any] = {}
    came: dict[Any, Any] = {}
    for key, value in content.items():
        named = isinstance(key, str) and isinstance(value, Tensor)
        ours = new[key] if named else key
        if ours in found:
            raise CheckpointError(
                f"--rename: {came[ours]} and {key} would both be {ours}; let the patterns fit one"
            )
        found[ours] = value if named else _with(value, new, depth + 1)
        came[ours] = key
    return found
