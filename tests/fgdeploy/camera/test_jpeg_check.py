from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.camera.jpeg_check import _PADDING, damage
from tests.checks import examples
from tests.fgdeploy.camera.mjpeg_server import jpeg_of

_PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
_KINDS = {
    "baseline": jpeg_of(_PIXELS),
    "progressive": jpeg_of(_PIXELS, progressive=1),
    "restarts": jpeg_of(_PIXELS, restart_marker_blocks=2),
    "grey": jpeg_of(_PIXELS[:, :, 0]),
    "comment": jpeg_of(_PIXELS, comment="\xff\xd9 is no end"),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_a_whole_jpeg_is_whole_and_no_part_of_it_is(kind: str) -> None:
    jpeg = _KINDS[kind]
    assert damage(jpeg) is None
    assert damage(jpeg + b"\r\n\0\0\xff\xff") is None
    for length in range(len(jpeg)):
        assert damage(jpeg[:length]) is not None, length


@pytest.mark.parametrize(
    ("jpeg", "words"),
    [
        (b"", "empty"),
        (b"GIF89a", "does not begin"),
        (b"\xff\xd8\xff\xd9", "before its pixels"),
        (b"\xff\xd8\x00\x01\x02\x03", "garbled"),
        (b"\xff\xd8\xff\xc0\x00\x01", "garbled"),
        (_KINDS["baseline"][:-700], "cut short"),
        (_KINDS["baseline"] + b"--frame", "7 bytes follow"),
        (_KINDS["baseline"][:-700] + _KINDS["baseline"], "another picture begins"),
        (_KINDS["baseline"] * 2, "bytes follow its end"),
    ],
)
def test_what_is_wrong_is_said(jpeg: bytes, words: str) -> None:
    assert words in str(damage(jpeg))


@examples(300)
@given(kind=st.sampled_from(sorted(_KINDS)), data=st.data())
def test_whatever_comes_is_told_in_words(kind: str, data: st.DataObject) -> None:
    jpeg = bytearray(_KINDS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(jpeg) - 1))
        jpeg[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    found = damage(bytes(jpeg))
    assert found is None or found
    tail = data.draw(st.binary(min_size=1, max_size=40).filter(lambda rest: rest.strip(_PADDING)))
    assert found is not None or damage(bytes(jpeg) + tail) is not None
