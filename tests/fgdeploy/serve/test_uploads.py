"""Bodies: what is refused before it is read, or before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.uploads import UploadGate, check_pixels
from tests.checks import refused
from tests.fgdeploy.serve.asking import photo, told
from tests.fgdeploy.serve.conftest import Served


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of so many black pixels in a few bytes: its rows end early."""

    def chunk(name: bytes, data: bytes) -> bytes:
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_are_not_decoded(served: Served) -> None:
    for sides in ((8000, 8000), (12_000, 8000), (60_000, 60_000)):
        told(served.ask.image("/hash", bomb(*sides)), 422, "image", "pixels.*scale it down")


def test_the_limit_of_pixels_is_the_last_one_allowed() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "PNG")
    check_pixels(stream.getvalue(), 200)
    with pytest.raises(Exception, match="20x10 pixels, expected 199"):
        check_pixels(stream.getvalue(), 199)


def test_what_is_no_image(served: Served) -> None:
    for body in (b"", b"junk", photo(0)[:300], b"\xff\xd8\xff", b"GIF89a"):
        told(served.ask.image("/hash", body), 422, "image", "the image in memory")


def test_other_kinds_of_bodies(served: Served) -> None:
    for kind in ("text/plain", "application/json", "multipart/form-data", "image"):
        answer = served.ask("POST", "/hash", photo(0), content_type=kind)
        told(answer, 415, "media_type", "image/jpeg")
    told(served.ask("POST", "/hash", photo(0)), 415, "media_type", "got none")


def test_bytes_of_no_declared_kind_are_an_image(served: Served) -> None:
    for kind in ("application/octet-stream", "image/jpeg; q=1", "IMAGE/PNG"):
        answer = served.ask("POST", "/hash", photo(0), content_type=kind)
        assert answer.status_code == 200, answer.text


def test_long_bodies(serve: Callable[..., Served]) -> None:
    served = serve(upload_bytes=len(photo(0)))
    assert served.ask.image("/hash", photo(0)).status_code == 200
    told(served.ask.image("/hash", photo(0) + b"x"), 413, "too_long")
    answer = served.ask("POST", "/search", b"[" * 70_000, content_type="application/json")
    told(answer, 413, "too_long")


def test_so_many_at_once_and_no_more() -> None:
    gate = UploadGate(1)
    with gate.admitted():
        with refused(Refusal, "1 image under way already"), gate.admitted():
            pass
        assert (gate.under_way, gate.refused) == (1, 1)
    with gate.admitted():
        assert gate.under_way == 1
    assert gate.under_way == 0
