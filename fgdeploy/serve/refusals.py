"""What is refused, by status: one shape for every error, without this machine's paths."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fgdeploy.core.errors import (
    EngineError,
    FgdeployError,
    ImageError,
    IndexStoreError,
    UsageError,
)
from fgdeploy.core.text import one_line
from fgdeploy.live.hash_worker import Busy

# What a client may read of an error: those that name what it sent. All others go to the log.
_TOLD: Mapping[type[FgdeployError], tuple[int, str]] = {
    Busy: (429, "busy"),
    ImageError: (422, "image"),
    UsageError: (422, "usage"),
}
_KEPT: Mapping[type[FgdeployError], tuple[int, str, str]] = {
    EngineError: (503, "engine", "the engine cannot answer now; the service's log says why"),
    IndexStoreError: (503, "index", "the index cannot be used now; the service's log says why"),
}


class Refusal(FgdeployError):
    """A request that is not answered. close: the connection ends with it, its body half read."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.close = status, kind, close
        self.headers = dict(headers or {})


def refusal_of(error: Exception) -> tuple[Refusal, bool]:
    """Return what a client is told of an error, and whether the log must say more."""
    if isinstance(error, Refusal):
        return error, False
    for kind in type(error).__mro__:
        if kind in _TOLD:
            status, name = _TOLD[kind]
            retry = {"retry-after": "1"} if status in (429, 503) else None
            return Refusal(status, name, str(error).removeprefix("--"), retry), False
        if kind in _KEPT:
            status, name, words = _KEPT[kind]
            return Refusal(status, name, words, {"retry-after": "1"}), True
    return Refusal(500, "internal", "the service failed; its log says why"), True


def body_of(message: str, kind: str) -> bytes:
    """Return the JSON of a refusal."""
    return json.dumps({"error": one_line(message), "kind": kind}).encode()
