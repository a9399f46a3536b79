"""Photos as small pictures within a page: embedded, bounded in bytes, said where they are gone."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

from fgdeploy.core.errors import ImageError
from fgdeploy.photos import thumbnail
from fgdeploy.report.html_parts import text

_SIDE, _QUALITY = 136, 80  # of a picture, in pixels on its short side, and of JPEG
_MOST_BYTES = 4 << 20  # of all pictures in a page


def captioned(
    picture: Callable[[str | None], str], path: str | None, label: str, note: str, kind: str
) -> str:
    """Return a figure with its caption. picture: from `within_limit`; kind: the figure's class."""
    name = "" if path is None else Path(path).name
    return (
        f'<figure class="{kind}">{picture(path)}<figcaption>{text(note)}<br>{text(label)}<br>'
        f"{text(name)}</figcaption></figure>"
    )


def within_limit() -> Callable[[str | None], str]:
    """Return what makes a photo a small picture in the page, until these are too many bytes."""
    held: dict[str, str] = {}
    used = 0

    def picture(path: str | None) -> str:
        nonlocal used
        if path is None or "://" in path:
            return '<div class="gone">no photo here</div>'
        if path not in held:
            made = _picture(path) if used < _MOST_BYTES else '<div class="gone">left out</div>'
            held[path] = made
            used += len(made)
        else:
            used += len(held[path])
        return held[path]

    return picture


def _picture(path: str) -> str:
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for ever
            raise ImageError("not a file")
        content = base64.b64encode(thumbnail(path, side=_SIDE, quality=_QUALITY)).decode("ascii")
    except ImageError:
        return '<div class="gone">cannot be shown</div>'
    return f'<img alt="{text(Path(path).name)}" src="data:image/jpeg;base64,{content}">'
