from __future__ import annotations

import numpy as np

from fgdeploy.photos.generated_frames import wave_frame


def test_frames_differ_and_come_back_by_their_seed() -> None:
    chooser = np.random.default_rng(0)
    frames = [wave_frame(40, chooser) for _ in range(4)]
    for frame in frames:
        assert (frame.dtype, frame.shape) == (np.uint8, (40, 40, 3))
        assert frame.std() > 8
    assert len({frame.tobytes() for frame in frames}) == 4
    again = wave_frame(40, np.random.default_rng(0))
    np.testing.assert_array_equal(again, frames[0])
