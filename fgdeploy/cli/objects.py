"""What a command is about: the bundle, index, training or photos that its words or options mean.

A command's object is its first word, or an option, or the only one that lies in the working folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import counted, plural

if TYPE_CHECKING:
    from fgdeploy.gallery.searchable import Searchable

_HERE = "Default: the one *.fgd in this folder."
BundleArgument = Annotated[
    Path | None, typer.Argument(metavar="BUNDLE", help=f"The bundle. {_HERE}")
]
# For commands whose object is something else.
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", "-b", help=f"The bundle. {_HERE}", metavar="BUNDLE")
]
# For commands that search an index.
SearchedBundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", "-b", help="The bundle. Default: the one of the index.", metavar="BUNDLE"
    ),
]
# For commands that take the bundle as their first word: the option of before goes on working.
OldBundleOption = Annotated[Path | None, typer.Option("--bundle", "-b", hidden=True)]
IndexArgument = Annotated[
    Path | None,
    typer.Argument(metavar="INDEX", help="The index. Default: the one *.fgi in this folder."),
]
_SHOWN = 4  # names in a message
_INDEX = ".fgi"
_WEIGHTS = "model.safetensors"  # what makes a folder a training's


def is_bundle(path: Path) -> bool:
    """Tell whether a path means a bundle: a name *.fgd, or a folder with a manifest."""
    return path.suffix == ".fgd" or (path / "manifest.json").is_file()


def bundle_of(
    word: Path | None, option: Path | None, way: str = "name one, such as eet.fgd"
) -> Path:
    """Return the bundle that is meant. Raises UsageError for two of them, or none.

    way: how to name one in this command.
    """
    return one_of("bundle", word, option, "--bundle") or _only("bundle", "*.fgd", way)


def index_of(word: Path | None, way: str = "name one, such as gallery.fgi") -> Path:
    """Return the index that is meant. Raises UsageError for none. way: as in `bundle_of`."""
    return word or _only("index", "*.fgi", way)


def bundle_for(index: Searchable, named: Path | None = None) -> Path:
    """Return the bundle that was named, or that built an index, or is the only one here.

    Raises UsageError for none, or several.
    """
    from fgdeploy.gallery import bundle_of as built_by

    if found := named or built_by(index):
        return found
    lost = "" if index.bundle is None else f" ({index.name} was built with {index.bundle})"
    return bundle_of(None, None, f"name one with --bundle{lost}")


def bundle_at(index: Path) -> Path | None:
    """Return the bundle that belongs to the index at a path, None if nothing is there yet."""
    from fgdeploy.retrieval import Index

    try:
        with Index.open(index) as found:
            return bundle_for(found)
    except IndexStoreError:
        if index.exists():  # and another process has not just removed it
            raise
    return None


def indexes_for(named: Sequence[str], bundle: Path | None) -> Sequence[str | Path]:
    """Return the folders and addresses that were named, or what `index_for` finds."""
    return named or [index_for(None, bundle)]


def index_for(named: Path | None, bundle: Path | None) -> Path:
    """Return the index that was named, or the only one here, or the only one of a bundle.

    bundle: the one that was named; else all in the working folder are looked at. Raises UsageError
    for none, or several.
    """
    from fgdeploy.gallery import index_of as built_of

    indexes, bundles = here("*.fgi"), [bundle] if bundle else here("*.fgd")
    fitting = built_of(indexes, bundles) if len(indexes) > 1 else None
    return named or fitting or index_of(None, "name one with --index")


def refuse_swapped(index: Path, photos: Path) -> None:
    """Refuse an index and photos that stand in each other's place, or a bundle in theirs."""
    right = "the order is: fgdeploy index add INDEX PHOTOS --bundle BUNDLE"
    if (photos.suffix == _INDEX or _is_index(photos)) and not _is_index(index):
        raise UsageError(f"{photos} is an index and stands where the photos belong; {right}")
    for what, path in (("index", index), ("photos", photos)):
        if is_bundle(path):
            raise UsageError(f"{path} is a bundle and stands where the {what} belongs; {right}")


def _is_index(path: Path) -> bool:
    return (path / "index.sqlite").is_file()


def here(pattern: str) -> list[Path]:
    """Return the folders in the working folder whose names match."""
    return sorted(path for path in Path().glob(pattern) if path.is_dir())


def training_of(word: Path | None, option: Path | None) -> Path | None:
    """Return the training's folder or checkpoint that was named, None if none was."""
    return one_of("checkpoint", word, option, "--checkpoint")


def only_training() -> Path | None:
    """Return the only folder here that a training wrote, None if there is none.

    Raises UsageError if there are several.
    """
    found = [path for path in sorted(Path().iterdir()) if (path / _WEIGHTS).is_file()]
    if len(found) > 1:
        names = ", ".join(map(str, found[:_SHOWN]))
        raise UsageError(
            f"{counted(len(found), 'training')} ({names}) in this folder; name one, or say "
            "--weights pretrained for timm's"
        )
    return found[0] if found else None


def bundle_and_photos(
    words: Sequence[Path], bundle: Path | None, photos: Path | None
) -> tuple[Path, Path | None]:
    """Return the bundle and the photos that words mean in any order, or options, or neither.

    Photos that nobody named are None. Raises UsageError where two words mean the same thing.
    """
    bundles = [word for word in words if is_bundle(word)]
    others = [word for word in words if not is_bundle(word)]
    if len(bundles) > 1:
        raise UsageError(f"{bundles[0]} and {bundles[1]} are both bundles; give one, and photos")
    if len(others) > 1:
        raise UsageError(
            f"neither {others[0]} nor {others[1]} is a bundle (a folder *.fgd with a "
            "manifest.json); give one bundle, and photos"
        )
    named = one_of("place of photos", others[0] if others else None, photos, "--data")
    return bundle_of(bundles[0] if bundles else None, bundle), named


def one_of(what: str, word: Path | None, option: Path | None, flag: str) -> Path | None:
    """Return what a word or an option names. Raises UsageError if they name two things."""
    if word is not None and option is not None and word != option:
        raise UsageError(f"{word} and {flag} {option} name two {plural(what)}; give one of them")
    return option if word is None else word


def _only(what: str, pattern: str, way: str) -> Path:
    found = here(pattern)
    if len(found) == 1:
        return found[0]
    several = f"{counted(len(found), what)} ({', '.join(map(str, found[:_SHOWN]))})"
    raise UsageError(f"{several if found else f'no {what}'} in this folder; {way}")
