import csv
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.demo.moths import draw_moth, species, write_moths

Pixels: TypeAlias = npt.NDArray[np.uint8]
Rows: TypeAlias = npt.NDArray[np.float64]


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def folder_bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def joint_histogram(pixels: Pixels) -> Rows:
    bins = pixels.astype(np.int64) // 32
    codes = bins[..., 0] * 64 + bins[..., 1] * 8 + bins[..., 2]
    counts: Rows = np.bincount(codes.ravel(), minlength=512) / codes.size
    return counts


def channel_histogram(pixels: Pixels) -> Rows:
    parts = [np.bincount(pixels[..., c].ravel() // 8, minlength=32) for c in range(3)]
    return np.concatenate(parts) / pixels[..., 0].size


def thumbnail(pixels: Pixels, side: int) -> Rows:
    grey = Image.fromarray(pixels.astype(np.float32).mean(axis=-1))
    return np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.float64).ravel()


def distances(queries: Rows, gallery: Rows, measure: str) -> Rows:
    if measure == "cosine":
        lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, gallery)]
        cosines: Rows = (queries / lengths[0]) @ (gallery / lengths[1]).T
        return -cosines
    lines = []
    for row in queries:
        apart = np.abs(row - gallery)
        if measure == "chi2":
            apart = apart**2 / (row + gallery + 1e-12)
        lines.append((apart**2 if measure == "L2" else apart).sum(axis=1))
    return np.stack(lines)


@dataclass(frozen=True)
class Moths:
    pixels: Pixels  # (n, side, side, 3)
    labels: npt.NDArray[np.int64]
    train: npt.NDArray[np.bool_]

    def recall(self, apart: Rows, labels: npt.NDArray[np.int64]) -> float:
        """Return R@1 of the test photos among rows of these labels."""
        return float(np.mean(labels[apart.argmin(axis=1)] == self.labels[~self.train]))


@pytest.mark.parametrize("count", [2, 24, 200])
def test_any_two_species_differ_in_two_traits_and_in_name(count: int) -> None:
    kinds = species(count)
    assert len(kinds) == count
    for one, other in itertools.combinations(kinds, 2):
        assert one.name != other.name
        assert sum(a != b for a, b in zip(one.traits, other.traits, strict=True)) >= 2


@pytest.mark.parametrize("seed", range(10))
def test_few_species_differ_in_four_traits(seed: int) -> None:
    for one, other in itertools.combinations(species(24, seed), 2):
        assert sum(a != b for a, b in zip(one.traits, other.traits, strict=True)) >= 4


def test_species_names_suit_folders() -> None:
    assert all(kind.name.replace("_", "").isalpha() for kind in species(200))
    assert all(kind.name == kind.name.lower() for kind in species(200))


def test_species_are_deterministic_and_a_shorter_list_begins_a_longer_one() -> None:
    assert species(30, seed=3) == species(30, seed=3)
    assert species(8, seed=3) == species(30, seed=3)[:8]
    assert species(8, seed=3) != species(8, seed=4)


@pytest.mark.parametrize("size", [64, 100, 256])
def test_moth_has_the_size_asked_for(size: int) -> None:
    image = draw_moth(species(2)[0], np.random.default_rng(0), size)
    assert image.size == (size, size)
    assert image.mode == "RGB"


def test_every_species_can_be_drawn_at_the_smallest_size() -> None:
    for index, kind in enumerate(species(200)):
        draw_moth(kind, np.random.default_rng(index), 64)


def test_moth_depends_on_the_generator_and_on_the_species() -> None:
    one, other = species(2)
    first = draw_moth(one, np.random.default_rng(5), 96).tobytes()
    assert first == draw_moth(one, np.random.default_rng(5), 96).tobytes()
    assert first != draw_moth(one, np.random.default_rng(6), 96).tobytes()
    assert first != draw_moth(other, np.random.default_rng(5), 96).tobytes()


def test_with_the_same_generator_two_species_differ_in_a_small_part_of_the_image() -> None:
    kinds = species(12)
    images = [
        np.asarray(draw_moth(kind, np.random.default_rng(1), 128), np.int64) for kind in kinds
    ]
    for one, other in itertools.combinations(images, 2):
        changed = np.mean(np.abs(one - other).max(axis=-1) > 8)
        assert 0.002 < changed < 0.2


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_moths(tmp_path / "one", 3, 4, size=64, seed=7)
    write_moths(tmp_path / "two", 3, 4, size=64, seed=7)
    write_moths(tmp_path / "three", 3, 4, size=64, seed=8)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")
    assert folder_bytes(tmp_path / "one") != folder_bytes(tmp_path / "three")


def test_an_image_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    write_moths(tmp_path / "few", 2, 2, size=64)
    write_moths(tmp_path / "many", 5, 6, size=64)
    few, many = folder_bytes(tmp_path / "few"), folder_bytes(tmp_path / "many")
    del few["split.csv"]
    assert len(few) == 4
    assert few.items() <= many.items()


def test_split_table_lists_every_image_and_halves_every_class(tmp_path: Path) -> None:
    table = write_moths(tmp_path / "moths", species_count=3, images_per_species=5, size=80)
    assert table == tmp_path / "moths" / "split.csv"
    assert table.read_bytes().startswith(b"path,class,split\n")
    rows = read_rows(table)
    on_disk = {path.relative_to(table.parent).as_posix() for path in table.parent.rglob("*.jpg")}
    assert {row["path"] for row in rows} == on_disk
    assert len(rows) == 15
    names = [f"{index:02d}_{kind.name}" for index, kind in enumerate(species(3))]
    for name in names:
        own = [row for row in rows if row["class"] == name]
        assert [row["path"] for row in own] == [f"{name}/{index:04d}.jpg" for index in range(5)]
        assert [row["split"] for row in own] == ["train"] * 2 + ["test"] * 3
    with Image.open(table.parent / rows[0]["path"]) as image:
        assert image.format == "JPEG"
        assert image.size == (80, 80)


def test_folder_names_sort_by_index_beyond_one_hundred_species(tmp_path: Path) -> None:
    rows = read_rows(write_moths(tmp_path, species_count=101, images_per_species=2, size=64))
    classes = list(dict.fromkeys(row["class"] for row in rows))
    assert classes == sorted(classes)
    assert classes[100].startswith("100_")


def test_progress_counts_up_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_moths(tmp_path, 2, 3, size=64, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("count", [-1, 0, 1, 201])
def test_species_count_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^species count must be 2\.\.200, got {count}$"):
        species(count)


def test_negative_seed() -> None:
    with pytest.raises(ValueError, match=r"^seed must be 0 or more, got -1$"):
        species(2, seed=-1)


def test_size_too_small() -> None:
    with pytest.raises(ValueError, match=r"^image size must be 64 pixels or more, got 63$"):
        draw_moth(species(2)[0], np.random.default_rng(0), 63)


@pytest.mark.parametrize(
    ("species_count", "images_per_species", "size", "seed"),
    [(1, 2, 64, 0), (201, 2, 64, 0), (2, 1, 64, 0), (2, 2, 63, 0), (2, 2, 64, -1)],
)
def test_nothing_is_written_for_arguments_out_of_range(
    tmp_path: Path, species_count: int, images_per_species: int, size: int, seed: int
) -> None:
    folder = tmp_path / "moths"
    with pytest.raises(ValueError, match=r"must be .*, got -?\d+$"):
        write_moths(folder, species_count, images_per_species, size, seed)
    assert not folder.exists()


@pytest.fixture(scope="module")
def twenty_four(tmp_path_factory: pytest.TempPathFactory) -> Moths:
    folder = tmp_path_factory.mktemp("moths")
    rows = read_rows(write_moths(folder, species_count=24, images_per_species=40, size=128))
    pixels = [np.asarray(Image.open(folder / row["path"]).convert("RGB")) for row in rows]
    labels = np.unique([row["class"] for row in rows], return_inverse=True)[1]
    return Moths(np.stack(pixels), labels, np.array([row["split"] == "train" for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["L1", "chi2", "cosine"])
@pytest.mark.parametrize("histogram", [joint_histogram, channel_histogram])
def test_a_colour_histogram_does_not_solve_the_task(
    twenty_four: Moths, histogram: Callable[[Pixels], Rows], measure: str
) -> None:
    rows = np.stack([histogram(pixels) for pixels in twenty_four.pixels])
    queries, gallery = rows[~twenty_four.train], rows[twenty_four.train]
    labels = twenty_four.labels[twenty_four.train]
    assert twenty_four.recall(distances(queries, gallery, measure), labels) < 0.20


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("side", [16, 32])
def test_thumbnails_and_mean_images_do_not_solve_the_task(
    twenty_four: Moths, side: int, normalised: bool
) -> None:
    rows = np.stack([thumbnail(pixels, side) for pixels in twenty_four.pixels])
    if normalised:
        rows = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    queries, gallery = rows[~twenty_four.train], rows[twenty_four.train]
    labels = twenty_four.labels[twenty_four.train]
    means = np.stack([gallery[labels == label].mean(axis=0) for label in range(24)])
    for measure in ("L1", "L2", "cosine"):
        assert twenty_four.recall(distances(queries, gallery, measure), labels) < 0.20
        assert twenty_four.recall(distances(queries, means, measure), np.arange(24)) < 0.20
