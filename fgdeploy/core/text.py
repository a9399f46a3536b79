"""Names that can be written down."""

from __future__ import annotations


def is_utf8(*names: str | None) -> bool:
    try:
        "".join(name or "" for name in names).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
