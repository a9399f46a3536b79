"""Bodies of requests: read as they come, within a size and a time, and refused before that."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import anyio
from fastapi import Request
from PIL import Image
from starlette.requests import ClientDisconnect

from fgdeploy.core.errors import ImageError
from fgdeploy.core.text import counted, shown
from fgdeploy.photos.formats import open_image
from fgdeploy.photos.given import NAME
from fgdeploy.serve.refusals import Refusal

JSON_BYTES = 65_536
_KIND = "application/octet-stream"


def is_image(request: Request) -> bool:
    """Return whether a request says that its body is an image, or just bytes."""
    kind = _kind(request)
    return kind.startswith("image/") or kind == _KIND


def require_image(request: Request) -> None:
    """Refuse a body of another kind than an image."""
    if not is_image(request):
        raise Refusal(
            415,
            "media_type",
            f"expected an image as the body, with a Content-Type image/jpeg, image/png or such, or "
            f"{_KIND}; got {shown(_kind(request) or 'none')}",
            close=True,
        )


def require_json(request: Request) -> None:
    """Refuse a body that is neither an image nor JSON."""
    if _kind(request) != "application/json":
        raise Refusal(
            415,
            "media_type",
            f"expected an image (image/..., {_KIND}) or application/json as the body, got "
            f"{shown(_kind(request) or 'no Content-Type')}",
            close=True,
        )


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Return a request's whole body. Raises Refusal if it is too long, too slow or cut off."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_long(most)
    parts, size = [], 0
    try:
        with anyio.fail_after(seconds):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    raise _too_long(most)
    except TimeoutError:
        words = f"the body did not arrive within {seconds:g} s"
        raise Refusal(408, "slow", words, close=True) from None
    except ClientDisconnect:
        raise Refusal(400, "cut", "the body was cut off", close=True) from None
    return b"".join(parts)


def _too_long(most: int) -> Refusal:
    return Refusal(413, "too_long", f"expected a body of at most {most:,} bytes", close=True)


def json_of(body: bytes) -> dict[str, Any]:
    """Return a body's JSON object. Raises Refusal."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(422, "usage", 'expected a JSON object, such as {"id": 7}')
    return found


def check_pixels(image: bytes, most: int) -> None:
    """Raise ImageError for an image of more pixels, before any of them is decoded."""
    try:
        with open_image(io.BytesIO(image), NAME) as found:
            width, height = found.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{NAME} has more than {most:,} pixels; scale it down") from None
    except Exception:  # whoever decodes it says what is wrong
        return
    if width * height > most:
        raise ImageError(
            f"{NAME} has {width}x{height} pixels, expected {most:,} at most; scale it down"
        )


class UploadGate:
    """Counts the requests with an image that are under way, in the event loop. most: of them."""

    def __init__(self, most: int) -> None:
        self.most, self.under_way, self.refused = most, 0, 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Let one in. Raises Refusal before its body is read if there are too many."""
        if self.under_way >= self.most:
            self.refused += 1
            words = f"{counted(self.most, 'image')} under way already; send it again later"
            raise Refusal(429, "busy", words, {"retry-after": "1"}, close=True)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
