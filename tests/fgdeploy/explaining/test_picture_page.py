"""The page: one section a photo, pictures inside, no name that becomes markup."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdeploy.explaining import Explanation, Kept, write_page
from fgdeploy.explaining.explanation import Seen
from tests.fgdeploy.gallery.test_contact_sheet import NASTY, Page


def test_a_page(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    merged = Kept(2, np.array([[1, 1, 0, 0]]))
    found = [
        (Explanation(f"there/{NASTY}.jpg", frame, Seen((2, 2), kept=(merged,))), NASTY),
        (Explanation("b.jpg", frame, Seen((2, 2), rollout=np.eye(2))), None),
    ]
    write_page(tmp_path / "p.html", iter(found), f"model of {NASTY}")
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    text = " ".join(page.text)
    assert f"Model of {NASTY}. Dark patches were dropped." in text
    assert "share a row" in text and "from blue, the least, to yellow" in text
    assert "behind block 2: 1 row for 2 patches" in text and "attention rollout" in text
    assert [image.size for image in page.images()] == [(336, 336)] * 4
    assert sum(tag == "section" for tag, _ in page.tags) == 2
    assert not any("http" in (value or "") for _, one in page.tags for value in one.values())


def test_names_that_are_no_utf8_do_not_fail_it(tmp_path: Path) -> None:
    seen = Seen((2, 2), rollout=np.eye(2))
    odd = Explanation("\udcff.jpg", np.zeros((32, 32, 3), np.uint8), seen)
    write_page(tmp_path / "p.html", [(odd, None)], "model")
    assert "?.jpg" in (tmp_path / "p.html").read_text(encoding="utf-8")
