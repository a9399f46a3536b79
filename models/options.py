"""What a user may choose of a method."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fgdeploy.core import numbers
from fgdeploy.core.errors import UsageError
from fgdeploy.core.json_schema import said
from fgdeploy.models.backbone.vit import Geometry

_O = TypeVar("_O", bound="Options")


@dataclass(frozen=True)
class Options:
    """What a user may choose of a method: `--set name=value`, kept in configs and manifests.

    A method's options are a frozen subclass whose fields have defaults and are numbers, strings,
    booleans or None; a field of another type is read by overriding `read`.
    """

    @classmethod
    def parse(cls: type[_O], given: Mapping[str, str], on: _O | None = None) -> _O:
        """Return options from texts by name. Raises UsageError for an unknown name or value.

        on: what the others are, None for the defaults.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - set(known)):
            names = ", ".join(known) or "none"
            raise UsageError(f"--set {unknown[0]}: the method's options are {names}")
        values = {name: cls.read(name, text) for name, text in given.items()}
        return dataclasses.replace(cls() if on is None else on, **values)

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Return the value of one option from its text: JSON, or a string. Raises UsageError."""
        default = {f.name: f.default for f in dataclasses.fields(cls)}[name]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if isinstance(default, str):
            return text
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        finite = not isinstance(value, (int, float)) or abs(value) <= numbers.MOST_WHOLE
        if (default is not None and type(value) is not type(default)) or not finite:
            raise UsageError(
                f"--set {name}={text}: expected {_KINDS.get(type(default), 'a finite number')} "
                f"{'or' if default is None else 'such as'} {json.dumps(default)}"
            )
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls: type[_O], entry: Mapping[str, Any]) -> _O:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        known = {f.name: f.default for f in dataclasses.fields(cls)}
        for name, value in entry.items():
            if name not in known:
                raise ValueError(f"no option {name!r}")
            default = known[name]
            if default is not None and type(value) is not type(default):
                raise TypeError(f"option {name} is {said(value)}, expected such as {said(default)}")
        return cls(**entry)

    def resolved(self: _O, geometry: Geometry) -> _O:
        """Return the options with all that depends on the backbone filled in and checked."""
        return self

    def deciding(self, geometry: Geometry) -> dict[str, Any]:
        """Return what of them decides a code, for the fingerprint; weights are in it already."""
        return {"options": self.to_json()}

    def resized(self: _O) -> _O:
        """Return the options to start from at another image size than they were resolved for."""
        return self

    def dense(self: _O) -> _O:
        """Return the options of the same method without token reduction: what a teacher runs."""
        return self


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
