"""What a JSON file must hold, declared; and what is wrong with one, in plain words.

A check takes a value and its place in the file (`graph.opset`, empty for the whole) and raises
ValueError. Entries that a table does not name are left alone: a later version may have added them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]

LARGEST = (1 << 63) - 1  # what every reader of JSON and every database takes as a whole number
_DEEPEST = 32  # lists and objects in one another
_LONGEST_NUMBER = 40  # digits; of a float, 17 decide
_HEX = frozenset("0123456789abcdef")
_KINDS: dict[type, str] = {list: "a list", tuple: "a list", dict: "an object"}


def parse(raw: bytes) -> Any:
    """Return what a JSON file in UTF-8 says. Raises ValueError; `sane` asks for more."""
    try:
        return json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_number,
            parse_int=lambda digits: int(_short_number(digits)),
            parse_float=lambda digits: float(_short_number(digits)),
        )
    except RecursionError:
        raise ValueError("lists nested too deeply") from None


def sane(value: Any, place: str = "") -> None:
    """Check that all numbers are finite, texts are Unicode, and nesting ends."""
    _sane(value, place, 0)


def _sane(value: Any, place: str, depth: int) -> None:
    if isinstance(value, str):
        TEXT(value, place)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, (int, float)):
        number()(value, place)
    elif depth == _DEEPEST:
        raise ValueError(f"{place} nests more than {_DEEPEST} lists and objects")
    elif isinstance(value, dict):
        for name, inner in value.items():
            TEXT(name, f"a name in {place or 'it'}")
            _sane(inner, _dotted(place, name), depth + 1)
    elif isinstance(value, (list, tuple)):
        for count, inner in enumerate(value):
            _sane(inner, _dotted(place, str(count)), depth + 1)


def said(value: Any) -> str:
    """Return a value in a few words: `null`, `"ab"`, `-1`, `a list`."""
    words = _KINDS.get(type(value)) or json.dumps(value, default=repr)
    return words if len(words) <= 60 else f"{words[:60]}..."


def anything(value: Any, place: str) -> None:
    """Accept every value."""


def text(least: int = 0) -> Check:
    """Expect text of at least so many characters."""

    def check(value: Any, place: str) -> None:
        try:
            known = isinstance(value, str) and bool(value.encode("utf-8")) | (not least)
        except UnicodeEncodeError:
            known = False
        _expect(known, value, place, "some text" if least else "text")

    return check


TEXT, NAME = text(), text(1)


def sha256(value: Any, place: str) -> None:
    """Expect 64 hexadecimal digits."""
    known = isinstance(value, str) and len(value) == 64 and _HEX.issuperset(value)
    _expect(known, value, place, "a sha256 (64 hexadecimal digits)")


def flag(value: Any, place: str) -> None:
    """Expect true or false."""
    _expect(isinstance(value, bool), value, place, "true or false")


def whole(least: int, most: int = LARGEST) -> Check:
    """Expect a whole number in a range."""
    what = f"a whole number {_range(least, most)}"

    def check(value: Any, place: str) -> None:
        _expect(type(value) is int and least <= value <= most, value, place, what)

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """Expect a finite number in a range; whole ones within 64 bits."""
    what = f"a number {_range(least, most)}".rstrip()

    def check(value: Any, place: str) -> None:
        finite = abs(value) <= LARGEST if type(value) is int else _is_finite(value)
        _expect(finite and least <= value <= most, value, place, what)

    return check


def one_of(*known: Any) -> Check:
    """Expect one of a few values."""

    def check(value: Any, place: str) -> None:
        found = any(value == one and type(value) is type(one) for one in known)
        _expect(found, value, place, " or ".join(map(said, known)))

    return check


def maybe(inner: Check) -> Check:
    """Expect null, or what `inner` expects."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            inner(value, place)

    return check


def list_of(inner: Check, least: int = 0, most: int | None = None) -> Check:
    """Expect a list of so many values."""

    def check(value: Any, place: str) -> None:
        _expect(isinstance(value, (list, tuple)), value, place, "a list")
        if len(value) < least or (most is not None and len(value) > most):
            expected = f"{least}" if least == most else _range(least, most or math.inf)
            raise ValueError(f"{place} is a list of {len(value)}, expected one of {expected}")
        for count, one in enumerate(value):
            inner(one, _dotted(place, str(count)))

    return check


def map_of(inner: Check) -> Check:
    """Expect an object whose entries, of any name, are what `inner` expects."""

    def check(value: Any, place: str) -> None:
        _expect(isinstance(value, dict), value, place, "an object")
        for name, one in value.items():
            inner(one, _dotted(place, name))

    return check


def table(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Expect an object with these entries, and perhaps those."""

    def check(value: Any, place: str) -> None:
        _expect(isinstance(value, dict), value, place, "an object")
        for name in required:
            if name not in value:
                raise ValueError(f"no entry {_dotted(place, name)!r}")
        for name, inner in {**required, **(optional or {})}.items():
            if name in value:
                inner(value[name], _dotted(place, name))

    return check


def _expect(known: bool, value: Any, place: str, what: str) -> None:
    if not known:
        raise ValueError(f"{place or 'it'} is {said(value)}, expected {what}")


def _dotted(place: str, name: str) -> str:
    shown = name if name.isprintable() else ascii(name)  # a name may not paint on a terminal
    return f"{place}.{shown[:60]}" if place else shown[:60]


def _range(least: float, most: float) -> str:
    words = {
        (False, False): "",
        (True, False): f"from {least} up",
        (False, True): f"up to {most}",
        (True, True): f"from {least} to {most}",
    }
    return words[least > -math.inf, most < LARGEST]


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _short_number(digits: str) -> str:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return digits


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
