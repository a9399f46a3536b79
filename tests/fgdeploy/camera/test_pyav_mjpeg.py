"""A camera that sends MJPEG over HTTP, and what goes wrong with it."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from fgdeploy.camera.capture_source import BrokenFrame, CaptureSource, StreamBroken, StreamEnded
from fgdeploy.camera.sources import open_source
from fgdeploy.photos.images import Preprocess, decode
from tests.checks import refused
from tests.fgdeploy.camera.mjpeg_server import (
    MjpegServer,
    Script,
    Stall,
    Step,
    end,
    head,
    jpeg_of,
    part,
    plain_jpeg,
)
from tests.fgdeploy.camera.videos import read_all

pytest.importorskip("av")

_JPEGS = [plain_jpeg(20 * number) for number in range(10)]
_CUT = _JPEGS[1][: len(_JPEGS[1]) // 2]
_GARBAGE = bytes(range(256)) * 20


def _values(script: Script, **options: float) -> tuple[list[int], list[str], str]:
    """Return the grey values of the frames of a stream, what was broken, and the end."""
    with MjpegServer(script) as server:
        source = open_source(server.url, **options)  # type: ignore[arg-type]
        assert source.live and source.lasts
        frames, broken, ended = read_all(source)
    values = [round(float(frame.pixels.mean())) for frame in frames]
    return values, [str(error) for error in broken], str(ended)


@pytest.mark.parametrize("how", ["length, end", "length", "none, end"])
def test_all_frames_come(how: str) -> None:
    length = None if how.startswith("none") else -1
    script = [head(), *(part(jpeg, length) for jpeg in _JPEGS[:5])]
    script += [end()] if "end" in how else []
    values, broken, ended = _values(script)
    assert (values, broken) == ([0, 20, 40, 60, 80], [])
    assert "ended" in ended


def test_without_length_or_end_the_last_frame_is_not_given() -> None:
    """Nothing tells that it is whole before the next begins."""
    values, broken, _ = _values([head(), *(part(jpeg, None) for jpeg in _JPEGS[:5])])
    assert (values, broken) == ([0, 20, 40, 60], [])


@pytest.mark.parametrize("length", [-1, None])
def test_a_cut_jpeg_is_a_broken_frame(length: int | None) -> None:
    script = [head(), part(_JPEGS[0], length), part(_CUT, length)]
    script += [part(_JPEGS[2], length), part(_JPEGS[3], length), end()]
    values, broken, _ = _values(script)
    assert values == [0, 40, 60]
    assert len(broken) == 1 and "cut short" in broken[0]


def _length_beyond() -> list[Step]:
    return [head(), part(_JPEGS[0]), part(_CUT, len(_JPEGS[1])), part(_JPEGS[2]), part(_JPEGS[3])]


def _length_short() -> list[Step]:
    return [head(), part(_JPEGS[0]), part(_JPEGS[1], 600), part(_JPEGS[2]), part(_JPEGS[3])]


def _rest_behind() -> list[Step]:
    return [head(), part(_JPEGS[0]), part(_JPEGS[1] + _GARBAGE), part(_JPEGS[2]), end()]


def _two_in_one() -> list[Step]:
    return [head(), part(_JPEGS[0]), part(_CUT + _JPEGS[1]), part(_JPEGS[2]), end()]


@pytest.mark.parametrize("script", [_length_beyond, _length_short, _rest_behind, _two_in_one])
def test_length_and_end_marker_disagree(script: Callable[[], list[Step]]) -> None:
    values, broken, _ = _values(script())
    assert values[0] == 0 and 20 not in values
    assert set(values) <= {0, 40, 60}
    assert len(broken) == 1


@pytest.mark.parametrize("cut", [1, 2, 300, 600])
def test_a_connection_that_drops_within_a_frame_gives_no_part_of_it(cut: int) -> None:
    values, _, ended = _values([head(), part(_JPEGS[0]), part(_JPEGS[1])[: -2 - cut]])
    assert values == [0] and "ended" in ended


def test_garbage_between_parts_ends_the_stream() -> None:
    values, _, ended = _values([head(), part(_JPEGS[0]), _GARBAGE, part(_JPEGS[1])])
    assert values == [0] and "ended" in ended


def test_bytes_that_are_no_jpeg_are_broken_frames() -> None:
    values, broken, _ = _values([head(), part(_GARBAGE), part(_JPEGS[1]), end()])
    assert values == [20]
    assert "does not begin as a JPEG" in broken[0]


def test_a_jpeg_that_pillow_refuses_is_a_broken_frame() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (640, 480)).save(stream, "JPEG")
    odd = bytearray(stream.getvalue())
    size = odd.index(b"\xff\xc0") + 5
    odd[size : size + 4] = b"\xff\xff\xff\xff"  # 65535 x 65535
    values, broken, _ = _values([head(), part(bytes(odd)), part(_JPEGS[1]), end()])
    assert values == [20] and len(broken) == 1


def _opened(server: MjpegServer, read_s: float = 0.4) -> CaptureSource:
    source = open_source(server.url, open_s=0.5, read_s=read_s)
    source.open()
    return source


def test_a_server_that_never_answers_is_given_up() -> None:
    with MjpegServer([Stall()]) as server, refused(StreamBroken, "nothing came for 0.5 s"):
        _opened(server)


@pytest.mark.parametrize("more", [b"", part(_JPEGS[1])[:300]])
def test_a_stalled_stream_is_given_up(more: bytes) -> None:
    script = [head(), part(_JPEGS[0]), more, Stall()]
    with MjpegServer(script) as server, _opened(server) as source:
        assert round(float(source.read().pixels.mean())) == 0
        with refused(StreamBroken, "broke off: nothing came for 0.4 s"):
            while True:
                try:
                    source.read()
                except BrokenFrame:  # the part of a frame that came
                    continue


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([head(status="404 Not Found")], "cannot be opened: .*404"),
        ([head(status="401 Unauthorized")], "cannot be opened: .*401"),
        ([_GARBAGE], "cannot be opened"),
        ([head()], "cannot be opened|holds no video"),
        ([], "cannot be opened"),
    ],
)
def test_what_is_no_stream_is_refused(script: list[Step], words: str) -> None:
    with MjpegServer(script) as server, refused(StreamBroken, words):
        _opened(server)


def test_nobody_listens() -> None:
    with MjpegServer([]) as server:
        url = server.url
    with refused(StreamBroken, "cannot be opened: Connection refused"):
        open_source(url).open()
    rtsp = url.replace("http://", "rtsp://admin:hunter2@")
    with refused(StreamBroken, r"rtsp://\*\*\*@127.0.0.1:\d+/stream.mjpg cannot be opened"):
        open_source(rtsp).open()


def test_no_such_host() -> None:
    with pytest.raises(StreamBroken, match="cannot be opened") as caught:
        open_source("rtsp://admin:hunter2@camera.invalid/h264", open_s=5).open()
    assert "hunter2" not in str(caught.value)


def test_the_password_is_sent_and_never_shown() -> None:
    challenge = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="cam"\r\n'
    challenge += b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    with MjpegServer([challenge], [head(), part(_JPEGS[0]), end()]) as server:
        source = open_source(server.url.replace("//", "//admin:hunter2@") + "?token=hunter3")
        frames, _, ended = read_all(source)
        assert len(frames) == 1
        assert b"Authorization: Basic" in server.requests[1]
        assert b"hunter3" in server.requests[1]
    for text in (source.describe(), str(ended)):
        assert "hunter" not in text and "127.0.0.1" in text


@pytest.mark.parametrize("size", [(720, 1280), (333, 501)])
@pytest.mark.parametrize("options", [{}, {"progressive": 1}, {"subsampling": "4:4:4"}])
def test_a_picture_has_the_frame_of_the_same_photo(
    size: tuple[int, int], options: dict[str, int | str]
) -> None:
    """Bit by bit, as one decoder reads both."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)]
    jpeg = jpeg_of(np.asarray(np.stack(waves, -1) * 120 + 127, np.uint8), 85, **options)
    with MjpegServer([head(), part(jpeg), end()]) as server:
        frames, _, _ = read_all(open_source(server.url))
    preprocess = Preprocess(224, 256, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    np.testing.assert_array_equal(preprocess.frame(frames[0].pixels), preprocess.frame(jpeg))


def test_large_frames_may_be_decoded_smaller() -> None:
    jpeg = jpeg_of(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8))
    with MjpegServer([head(), part(jpeg), end()]) as server:
        frames, _, _ = read_all(open_source(server.url, shortest=128))
    expected = np.asarray(decode(jpeg, 128))
    assert expected.shape[0] < 600
    np.testing.assert_array_equal(frames[0].pixels, expected)


def test_the_size_may_change_and_grey_and_exif_are_understood() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    stream = io.BytesIO()
    Image.new("RGB", (640, 480), (100, 100, 100)).save(stream, "JPEG", exif=exif)
    grey = jpeg_of(np.full((40, 40), 60, np.uint8))
    script = [head(), part(_JPEGS[0]), part(grey), part(stream.getvalue()), end()]
    with MjpegServer(script) as server:
        frames, broken, _ = read_all(open_source(server.url))
    assert [frame.pixels.shape for frame in frames] == [(480, 640, 3), (40, 40, 3), (640, 480, 3)]
    assert not broken


def test_a_stream_that_ends_is_ended_not_broken() -> None:
    with MjpegServer([head(), part(_JPEGS[0]), end()]) as server, _opened(server) as source:
        source.read()
        with refused(StreamEnded, "ended"):
            source.read()
        again = source.again()
        again.open()
        again.read()
        again.close()
        assert len(server.requests) == 2
