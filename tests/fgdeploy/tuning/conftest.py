"""A made-up device: stairs, times and scores from tables, and a bundle that stands for all."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import BlockRows, Bundle, open_bundle, seal
from fgdeploy.demo.moths import write_moths
from fgdeploy.tuning import stack_timing, trials, workshop
from fgdeploy.tuning.staircase import Stair
from fgdeploy.tuning.workshop import Paced


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sub-species of sixteen photos, with split.csv."""
    folder = tmp_path_factory.mktemp("photos") / "moths"
    write_moths(folder, 2, 16, size=64)
    return folder


@pytest.fixture(scope="session")
def dense(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle, with the rows of a dense test_vit at 64 pixels: 6 blocks, 16 patches."""
    folder = Path(shutil.copytree(toy_bundle, tmp_path_factory.mktemp("bundles") / "dense.fgd"))
    manifest = open_bundle(folder).manifest
    blocks = [BlockRows(number, *[17] * 5) for number in range(1, 6)]
    last = BlockRows(6, tokens=17, query=1, keyval=17, proj=1, mlp=1)
    seal(folder, dataclasses.replace(manifest, blocks=(*blocks, last), depth=6))
    return folder


@dataclass
class Device:
    """What a device is said to measure: 1 ms a block by rows, and more for some schedules.

    slower: how many times its prediction a schedule takes; scores: mAP by schedule, dense 0.8.
    """

    dense: Path
    dense_ms: float = 7.0
    slower: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    otherwise: float = 0.796
    built: list[str] = field(default_factory=list)
    asked: list[Sequence[int]] = field(default_factory=list)
    folder: Path = Path()

    def measure(self, bundle: Bundle, engine: str, backbone: Any, points: Any, threads: Any) -> Any:
        """Return stairs on which a row takes 1/17 ms."""
        self.asked += list(points.values())
        return {
            batch: Stair(tuple(rows), (0.0,) * len(rows), tuple(batch * n / 17 for n in rows))
            for batch, rows in points.items()
        }

    def make(self, name: str, options: Mapping[str, str], run: Path | None = None) -> Bundle:
        self.built.append(options["stages"])
        return open_bundle(shutil.copytree(self.dense, self.folder / f"{len(self.built)}.fgd"))

    def score(self, options: Mapping[str, str], photos: int) -> float:
        stages = options["stages"]
        return 0.8 if stages == "none" else self.scores.get(stages, self.otherwise)

    def pace(self, bundle: Bundle, dense: Bundle) -> Paced:
        stages = self.built[-1]
        took = self.dense_ms + (sum(self.fed(stages)) - sum(self.fed(""))) / 17
        return Paced(took * self.slower.get(stages, self.slower.get("all", 1.0)), self.dense_ms)

    def fed(self, stages: str) -> list[int]:
        """Return the rows of the MLPs; the last block's one row takes as long as 8."""
        pairs = [part.split(":") for part in stages.split(",") if part]
        kept = {int(block): int(count) for block, count in pairs}
        rows, found = 17, []
        for block in range(1, 7):
            rows = kept[block] + 1 if block in kept else rows
            found.append(rows if block < 6 else 8)
        return found


@pytest.fixture
def device(dense: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Measure, build and score by tables from here on."""
    one = Device(dense)

    def make(shop: Any, *given: Any, **more: Any) -> Bundle:
        one.folder = shop.folder
        return one.make(*given, **more)

    monkeypatch.setattr(stack_timing, "measure", one.measure)
    monkeypatch.setattr(workshop.Workshop, "make", make)
    monkeypatch.setattr(workshop.Workshop, "alone", lambda shop, bundle: one.dense_ms)
    monkeypatch.setattr(workshop.Workshop, "pace", lambda shop, *given: one.pace(*given))
    monkeypatch.setattr(trials.Trials, "score", lambda _, *given: one.score(*given))
    return one
