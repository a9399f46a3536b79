"""The official datasets as their archives unpack: which one a folder is, its labels and splits.

dataset          lists (beside the photos)                            split 'test' is
CUB-200-2011     images.txt, classes.txt, ..., train_test_split.txt   0 in the split list
NABirds          the same, and hierarchy.txt                          0 in the split list
Stanford Cars    devkit/*.mat, or cars_annos.mat                      cars_test, or test = 1
VegFru           veg200_lists, fru92_lists, or vegfru_list            *_test.txt (val is 'val')
Food-101         meta/train.txt, meta/test.txt                        meta/test.txt
iNaturalist 2017 train2017.json, val2017.json                         val2017.json

Sources: the READMEs in CUB_200_2011, devkit and visipedia/inat_comp (2017); for the others, what
public loaders of NABirds, VegFru and Food-101 read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fgdeploy.core.errors import DataError
from fgdeploy.photos import list_files as listings
from fgdeploy.photos.list_files import AGAIN, Files
from fgdeploy.photos.photo import Photo

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True)
class Layout:
    """An official layout: what lies on disk, and the function that reads it.

    A folder is taken for it when `mark` and at least `enough` of `parts` are there, and read when
    all of them are. `home` is the folder that the archive makes, if it makes one.
    """

    name: str
    parts: tuple[str, ...]
    read: Callable[[Path], list[Photo]]
    mark: str = "."
    enough: int = 2
    home: str | None = None

    def fits(self, folder: Path) -> bool:
        """Tell whether `folder` looks like this layout, whole or in part."""
        there = sum(os.path.exists(folder / part) for part in self.parts)
        return there >= self.enough and os.path.exists(folder / self.mark)


def find_layout(folder: Path) -> tuple[Layout, Path] | None:
    """Return the layout of `folder` and where its lists lie; None if it has none of them.

    That is `folder` itself, or in it the folder that the archive makes (CUB_200_2011). Raises
    DataError if there are several of those.
    """
    for layout in LAYOUTS:
        if layout.fits(folder):
            return layout, folder
    inside = [
        (layout, folder / layout.home)
        for layout in LAYOUTS
        if layout.home and layout.fits(folder / layout.home)
    ]
    if len(inside) > 1:
        names = " and ".join(layout.name for layout, _ in inside)
        raise DataError(f"{folder} holds {names}; give the folder of one of them")
    return inside[0] if inside else None


def read_layout(folder: Path) -> list[Photo] | None:
    """List the photos of an official dataset with their class and split; None if it is none.

    Splits are 'train' and 'test', and 'val' for the lists of VegFru with that name. Raises
    DataError if a list is missing or damaged, or a photo in it is not there.
    """
    found = find_layout(folder)
    if found is None:
        return None
    layout, root = found
    missing = [part for part in layout.parts if not os.path.exists(root / part)]
    if missing:
        raise DataError(
            f"{root} looks like {layout.name}, but {missing[0]} is missing; {AGAIN}, "
            "or give a CSV with the columns path,class,split"
        )
    photos = layout.read(root)
    if not photos:
        raise DataError(f"{root} looks like {layout.name}, but its lists are empty; {AGAIN}")
    return photos


def _distinct(names: Mapping[_Key, str]) -> dict[_Key, str]:
    """Put the class id in front of names that several classes have."""
    count = Counter(names.values())
    return {key: f"{key} {name}" if count[name] > 1 else name for key, name in names.items()}


# --- CUB-200-2011 and NABirds

_BIRDS = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
_BIRD_SPLITS = {"1": "train", "0": "test"}


def _birds(root: Path) -> list[Photo]:
    images = listings.table(root / "images.txt", "an image id and a path")
    labels = listings.table(root / "image_class_labels.txt", "an image id and a class id")
    splits = listings.table(root / "train_test_split.txt", "an image id and 1 or 0")
    classes = listings.table(root / "classes.txt", "a class id and a name")
    for name, other in (("image_class_labels.txt", labels), ("train_test_split.txt", splits)):
        if odd := images.keys() ^ other.keys():
            raise DataError(
                f"{root}: image {min(odd)!r} is in only one of images.txt and {name}; {AGAIN}"
            )
    for where, number in labels.values():
        if number not in classes:
            raise DataError(f"{where}: class {number!r} is not in classes.txt; {AGAIN}")
    for where, split in splits.values():
        if split not in _BIRD_SPLITS:
            raise DataError(f"{where}: expected 1 (train) or 0 (test), got {split!r}; {AGAIN}")
    # only classes with photos: NABirds also lists the species and families above them
    named = _distinct({number: classes[number][1] for _, number in labels.values()})
    files = Files(root / "images")
    return [
        Photo(files.locate(name, where), named[labels[image][1]], _BIRD_SPLITS[splits[image][1]])
        for image, (where, name) in images.items()
    ]


# --- Stanford Cars

_CARS_TEST = "cars_test_annos_withlabels.mat"


def _class_name(names: list[str], number: int, where: str) -> str:
    if not 1 <= number <= len(names):
        raise DataError(f"{where}: expected a class in 1..{len(names)}, got {number}; {AGAIN}")
    return names[number - 1]


def _cars(root: Path) -> list[Photo]:
    """Read the form with one folder and one list for each split."""
    devkit = root / "devkit"
    meta = devkit / "cars_meta.mat"
    names = listings.strings(meta, listings.read_mat(meta), "class_names")
    test = next(
        (path / _CARS_TEST for path in (devkit, root) if (path / _CARS_TEST).exists()), None
    )
    if test is None:  # the archive's own list of test photos has no classes
        raise DataError(
            f"{root} looks like Stanford Cars, but devkit/{_CARS_TEST} is missing; download it, "
            "as it is not part of the devkit's archive"
        )
    photos = []
    for path, split in ((devkit / "cars_train_annos.mat", "train"), (test, "test")):
        content = listings.read_mat(path)
        files = Files(root / f"cars_{split}")
        fields = {"fname": str, "class": int}
        for where, (name, number) in listings.structs(path, content, "annotations", fields):
            label = _class_name(names, number, where)
            photos.append(Photo(files.locate(name, where), label, split))
    return photos


def _cars_in_one(root: Path) -> list[Photo]:
    """Read the form with one folder, car_ims, and one list, cars_annos.mat."""
    path = root / "cars_annos.mat"
    content = listings.read_mat(path)
    names = listings.strings(path, content, "class_names")
    files = Files(root)
    photos = []
    fields = {"relative_im_path": str, "class": int, "test": int}
    for where, (name, number, test) in listings.structs(path, content, "annotations", fields):
        label = _class_name(names, number, where)
        photos.append(Photo(files.locate(name, where), label, "test" if test else "train"))
    return photos


# --- VegFru and Food-101

_VEGFRU_SPLITS = ("train", "val", "test")


def _listed_in_folders(path: Path, root: Path, split: str) -> Iterator[Photo]:
    """Read a list of `class/photo.jpg 12`; the label is the folder that the photo lies in."""
    files = Files(root)
    for where, name, number in listings.rows(path, "a path and a class number", last=True):
        label = Path(name).parent.name
        if not label or not number.isdecimal():
            raise DataError(
                f"{where}: expected class/photo and a class number, got {f'{name} {number}'!r}; "
                f"{AGAIN}"
            )
        yield Photo(files.locate(name, where), label, split)


def _vegfru(root: Path) -> list[Photo]:
    return [
        photo
        for short, part in (("veg", "veg200"), ("fru", "fru92"))
        for split in _VEGFRU_SPLITS
        for photo in _listed_in_folders(
            root / f"{part}_lists" / f"{short}_{split}.txt", root / f"{part}_images", split
        )
    ]


def _vegfru_in_one(root: Path) -> list[Photo]:
    """Read the form whose lists hold both halves, with paths like veg200_images/onion/1.jpg."""
    return [
        photo
        for split in _VEGFRU_SPLITS
        for photo in _listed_in_folders(root / "vegfru_list" / f"vegfru_{split}.txt", root, split)
    ]


def _food(root: Path) -> list[Photo]:
    files = Files(root / "images")
    photos = []
    for split in ("train", "test"):
        for where, line in listings.lines(root / "meta" / f"{split}.txt"):
            label, _, name = line.partition("/")
            if not label or not name:
                raise DataError(f"{where}: expected class/photo, got {line!r}; {AGAIN}")
            photos.append(Photo(files.locate(f"{line}.jpg", where), label, split))
    return photos


# --- iNaturalist 2017

_CATEGORIES: dict[str, type] = {"id": int, "name": str}
_ANNOTATIONS: dict[str, type] = {"image_id": int, "category_id": int}
_IMAGES: dict[str, type] = {"id": int, "file_name": str}


def _inat(root: Path) -> list[Photo]:
    files = Files(root)
    found: list[tuple[Path, int, str]] = []
    categories: dict[int, str] = {}
    for name, split in (("train2017.json", "train"), ("val2017.json", "test")):
        path = root / name
        content = listings.read_json(path)
        category_of = _inat_categories(path, content, categories)
        for where, (image, file) in listings.records(path, content, "images", _IMAGES):
            if image not in category_of:
                raise DataError(f"{where}: image {image} is not in annotations; {AGAIN}")
            found.append((files.locate(file, where), category_of[image], split))
    labels = _distinct(categories)
    return [Photo(path, labels[category], split) for path, category, split in found]


def _inat_categories(path: Path, content: dict[str, Any], names: dict[int, str]) -> dict[int, int]:
    """Map images to categories, whose names are added to `names`."""
    known = {
        key: name for _, (key, name) in listings.records(path, content, "categories", _CATEGORIES)
    }
    found: dict[int, int] = {}
    for where, (image, category) in listings.records(path, content, "annotations", _ANNOTATIONS):
        if category not in known:
            raise DataError(f"{where}: category {category} is not in categories; {AGAIN}")
        if found.setdefault(image, category) != category:
            raise DataError(f"{where}: image {image} has another category already; {AGAIN}")
        names[category] = known[category]
    return found


_VEGFRU_IMAGES = ("veg200_images", "fru92_images")
_VEGFRU_LISTS = tuple(
    f"{stem}_{split}.txt"
    for stem in ("veg200_lists/veg", "fru92_lists/fru")
    for split in _VEGFRU_SPLITS
)
_VEGFRU_LISTS_IN_ONE = tuple(f"vegfru_list/vegfru_{split}.txt" for split in _VEGFRU_SPLITS)
_CARS_IN_ONE = ("cars_annos.mat", "car_ims")
_CARS = ("cars_train", "cars_test", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat")
_FOOD = ("meta/train.txt", "meta/test.txt", "images")
_INAT = ("train2017.json", "val2017.json", "train_val_images")

# The first that fits is taken, so the more particular of two forms stands first.
LAYOUTS = (
    Layout("NABirds", _BIRDS, _birds, mark="hierarchy.txt", home="nabirds"),
    Layout("CUB-200-2011", _BIRDS, _birds, home="CUB_200_2011"),
    Layout("Stanford Cars", _CARS_IN_ONE, _cars_in_one, mark="cars_annos.mat", enough=1),
    Layout("Stanford Cars", _CARS, _cars),
    Layout("VegFru", _VEGFRU_IMAGES + _VEGFRU_LISTS_IN_ONE, _vegfru_in_one, mark="vegfru_list"),
    Layout("VegFru", _VEGFRU_IMAGES + _VEGFRU_LISTS, _vegfru),
    Layout("Food-101", _FOOD, _food, home="food-101"),
    Layout("iNaturalist 2017", _INAT, _inat),
)
