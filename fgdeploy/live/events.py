"""What happens while nobody watches, as log lines that programs can read.

Each line is `event key=value ...` of the logger `fgdeploy.live`; a record also carries the event's
name and its values as `record.event` and `record.values`, for handlers that write JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

LOG = logging.getLogger("fgdeploy.live")


def tell(event: str, level: int = logging.INFO, **values: Any) -> None:
    """Log an event, such as tell("reconnected", source="rtsp://...", attempts=3)."""
    if LOG.isEnabledFor(level):
        words = " ".join(f"{key}={_shown(value)}" for key, value in values.items())
        LOG.log(level, "%s", f"{event} {words}".rstrip(), extra={"event": event, "values": values})


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object a line: time (UTC, ISO 8601), level, event and values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        from datetime import datetime, timezone

        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
        }
        values = getattr(record, "values", None)
        entry |= {"message": record.getMessage()} if values is None else values
        return json.dumps(entry, default=str)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text)


@contextlib.contextmanager
def log_to_stderr(as_json: bool = False, level: int = logging.INFO) -> Iterator[None]:
    """Write events of at least a level to stderr while the block runs, as text or JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(message)s"))
    handlers, before, propagate = LOG.handlers[:], LOG.level, LOG.propagate
    LOG.handlers[:], LOG.propagate = [handler], False
    LOG.setLevel(level)
    try:
        yield
    finally:
        LOG.handlers[:], LOG.propagate = handlers, propagate
        LOG.setLevel(before)
