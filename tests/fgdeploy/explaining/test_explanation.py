"""What rows stand for, read from shares; which outputs are maps and boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fgdeploy.explaining.explanation import Explanation, Kept, Seen, seen_in


def test_what_rows_stand_for() -> None:
    kept = Kept(4, np.array([[0, 1, 0, 0, 0], [0.7, 0, 0, 0.2, 0], [0.3, 0, 0, 0.8, 0]]))
    assert kept.rows == 3
    assert kept.patches.tolist() == [True, True, False, True, False]
    assert kept.alone.tolist() == [False, True, False, False, False]
    assert kept.holders.tolist() == [1, 0, -1, 2, -1]


def test_a_stage_that_leaves_cls_alone_holds_nothing() -> None:
    kept = Kept(4, np.zeros((0, 5)))
    assert (kept.rows, kept.patches.any(), kept.alone.any()) == (0, False, False)
    assert kept.holders.tolist() == [-1] * 5


def test_maps_are_as_large_as_the_grid_and_boxes_have_four_numbers() -> None:
    tensors = {
        "similarity": np.ones((3, 2), np.float32),
        "turned": np.ones((2, 3), np.float32),
        "box": np.arange(4.0),
        "four": np.arange(4.0),
        "embedding": np.ones(6),
    }
    seen = seen_in(tensors, (3, 2))
    assert list(seen.maps) == ["similarity"] and list(seen.boxes) == ["box"]
    assert (seen.kept, seen.rollout) == ((), None)


def test_a_picture_is_saved_whole_as_png(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    Explanation("a", frame, Seen((2, 2), rollout=np.eye(2))).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and image.size == (932, 494)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
