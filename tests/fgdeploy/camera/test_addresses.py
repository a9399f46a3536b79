from __future__ import annotations

import pytest

from fgdeploy.camera.addresses import shown_address


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rtsp://cam:554/h264", "rtsp://cam:554/h264"),
        ("rtsp://admin:hunter2@cam:554/h264", "rtsp://***@cam:554/h264"),
        ("rtsp://admin:hun/ter@2@cam/h264", "rtsp://***@cam/h264"),
        ("HTTP://hunter2@cam/x.mjpg?user=a&pwd=hunter2", "HTTP://***@cam/x.mjpg?***"),
        ("http://cam/x?token=hunter2#at", "http://cam/x?***"),
        (
            "rtspsrc location=rtsp://a:hunter2@cam user-id=a user-pw=hunter2 ! decodebin ! appsink",
            "rtspsrc location=rtsp://***@cam user-id=*** user-pw=*** ! decodebin ! appsink",
        ),
        ('souphttpsrc user-pw="hunter 2" ! appsink', "souphttpsrc user-pw=*** ! appsink"),
        ("a\nb\x1b[2J", "a b\\x1b[2J"),
    ],
)
def test_secrets_do_not_show(given: str, expected: str) -> None:
    assert shown_address(given) == expected
    assert "hunter" not in shown_address(given)


def test_a_long_one_is_shortened() -> None:
    assert len(shown_address("rtsp://cam/" + "x" * 5000)) < 200
