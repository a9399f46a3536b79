"""k-fold training for small sets: every photo is held out once, then a model learns from all.

`RUN/fold-1` to `RUN/fold-k` keep the scores of the folds, without weights; RUN itself holds the
model of all photos, whose scores are those of the folds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy import photos
from fgdeploy.core import json_schema
from fgdeploy.core.errors import CheckpointError, DataError, UsageError
from fgdeploy.core.json_schema import TEXT, list_of, map_of, number, table
from fgdeploy.core.text import counted
from fgdeploy.evaluation import report
from fgdeploy.evaluation.leaks import check_repeats
from fgdeploy.evaluation.targets import TARGETS_FILE
from fgdeploy.models.methods import registry
from fgdeploy.photos import Photo
from fgdeploy.training import division, results
from fgdeploy.training.division import Division
from fgdeploy.training.fold_scores import FoldScores, measures_of
from fgdeploy.training.objective import STUDENT
from fgdeploy.training.run_state import STATE_FILE
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, Trained, read_trained, train_on

# What of a fold's run is not kept: it is worth no more than the scores that it gave.
_NOT_KEPT = ("*.safetensors", "model.json", "teacher.json", TARGETS_FILE)
_PROGRESS = table({"digest": TEXT, "each": list_of(map_of(map_of(number(0, 1))))})


def train_folds(
    settings: TrainSettings,
    count: int,
    folder: Path,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Trained:
    """Train `count` times with a part of the photos held out, then on all of them, into `folder`.

    The outcome is that of the last training, with the scores of the folds. resume: go on with the
    fold in hand. Raises as `train` does, UsageError for photos with splits of their own, and
    DataError where a class has fewer photos than there are folds.
    """
    report.check_drawing()
    reporter = reporter or Reporter()
    if count < 2:
        raise UsageError(f"--folds {count}: expected 2 or more")
    if settings.val_fraction is not None:
        raise UsageError(
            f"--folds {count} holds each photo out once, so --val-fraction has no meaning; give "
            "one of them"
        )
    results.check(folder, settings.data, resume, overwrite)
    registry.get(settings.method).recipe(settings.recipe)  # before all photos are looked at
    usable, skipped = division.usable(
        settings.data,
        settings.strict,
        reporter.notify,
        reporter.progress("checking photos"),
        settings.columns,
    )
    numbers = assign_folds(usable, count, settings.seed, str(settings.data))
    digest = _digest(settings, usable, numbers)
    each = _done(folder, digest) if resume else []
    if resume and results.is_finished(folder):
        reporter.notify(f"{folder} is finished already; nothing left to train")
        return read_trained(folder)
    check_repeats(usable, True, reporter.notify)
    begin = None if resume else (lambda: _begin(folder, settings, digest))
    for fold in range(len(each), count):
        asked = numbers == fold
        held = counted(int(asked.sum()), "photo")
        reporter.notify(f"fold {fold + 1} of {count}: {held} held out")
        part = Division(*_sides(usable, asked), _classes(usable), ())
        each.append(_train_fold(part, settings, fold_folder(folder, fold), reporter, begin))
        results.write_json(folder / results.FOLDS_FILE, {"digest": digest, "each": each})
        begin = None
    for fold in range(count):
        _drop_weights(fold_folder(folder, fold))
    reporter.notify(f"all {counted(len(usable), 'photo')}: the model to keep")
    whole = Division(*_sides(usable, np.zeros(len(usable), bool)), _classes(usable), tuple(skipped))
    under_way = (folder / STATE_FILE).is_file()
    scores = FoldScores(tuple(each))
    return train_on(lambda: whole, settings, folder, under_way, reporter, folds=scores)


def fold_folder(folder: Path, fold: int) -> Path:
    """Return the folder of a fold's run. fold: from 0; the folders' names count from 1."""
    return folder / f"{results.FOLD_PREFIX}{fold + 1}"


def assign_folds(
    usable: Sequence[Photo], count: int, seed: int, source: str
) -> npt.NDArray[np.int64]:
    """Return the fold that holds out each photo, 0 to count - 1, (n,).

    Each class is spread over all folds as evenly as can be, and all folds are of one size but for
    one photo where no photo has copies; copies are in one fold. The seed decides who is where.
    source: for messages. Raises UsageError for photos with splits, DataError where a class has
    fewer photos than there are folds.
    """
    if any(photo.split for photo in usable):
        raise UsageError(
            f"--folds {count}: {source} says itself which photos train and which test; leave the "
            "option out, or give photos without splits"
        )
    groups: dict[str, list[list[int]]] = {}
    for members in _copies(usable):
        groups.setdefault(str(usable[members[0]].label), []).append(members)
    if len(groups) < 2:
        raise DataError(
            f"{source}: training needs photos of two classes or more, got {len(groups)}; check the "
            "folder of each class, or the class column"
        )
    _check_count(groups, count)
    chooser = np.random.default_rng(seed)
    numbers = np.zeros(len(usable), np.int64)
    turn = 0  # goes on from class to class, so that no fold gets the odd photo of all of them
    for _, of_class in sorted(groups.items()):
        of_class.sort(key=lambda members: str(usable[members[0]].path))
        for place in chooser.permutation(len(of_class)).tolist():
            numbers[of_class[place]] = turn % count
            turn += 1
    return numbers


def _check_count(groups: dict[str, list[list[int]]], count: int) -> None:
    name, fewest = min(((name, len(one)) for name, one in groups.items()), key=lambda one: one[1])
    if fewest >= count:
        return
    what = counted(fewest, "photo") + (" that are no copies" if fewest > 1 else "")
    advice = "add photos, or leave the class out"
    if fewest > 1:
        advice = f"take --folds {fewest} or fewer, or add photos"
    raise DataError(
        f"--folds {count}: class {name} has {what}, and each fold holds out one of every class; "
        f"{advice}"
    )


def _copies(usable: Sequence[Photo]) -> list[list[int]]:
    """Return the photos by number, those that are copies of each other together."""
    alone = [dataclasses.replace(one, split=str(number)) for number, one in enumerate(usable)]
    found = photos.find_repeats(alone).splits
    groups = [[int(photo.split or 0) for photo in group] for group in found]
    known = {number for group in groups for number in group}
    return groups + [[number] for number in range(len(usable)) if number not in known]


def _sides(
    usable: Sequence[Photo], asked: npt.NDArray[np.bool_]
) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    train, test = (
        tuple(
            dataclasses.replace(photo, split=split)
            for photo, held in zip(usable, asked.tolist(), strict=True)
            if held == (split == "test")
        )
        for split in ("train", "test")
    )
    return train, test


def _classes(usable: Sequence[Photo]) -> tuple[str, ...]:
    return tuple(sorted({str(photo.label) for photo in usable}))


def _train_fold(
    part: Division,
    settings: TrainSettings,
    folder: Path,
    reporter: Reporter,
    begin: Callable[[], None] | None,
) -> dict[str, dict[str, float]]:
    """Train one fold, or go on with it, and return its scores."""
    if begin is None and results.is_finished(folder):
        return measures_of(results.read_finished(folder).scores[STUDENT])
    under_way = begin is None and (folder / STATE_FILE).is_file()
    done = train_on(lambda: part, settings, folder, under_way, reporter, begin)
    return measures_of(done.scores[STUDENT])


def _drop_weights(folder: Path) -> None:
    for pattern in _NOT_KEPT:
        for path in folder.glob(pattern):
            path.unlink()


def _begin(folder: Path, settings: TrainSettings, digest: str) -> None:
    """Make the run's folder once the first fold is sure to start."""
    results.clear_folds(folder)
    results.begin(folder, settings.to_json(), digest)
    results.write_json(folder / results.FOLDS_FILE, {"digest": digest, "each": []})


def _digest(
    settings: TrainSettings, usable: Sequence[Photo], numbers: npt.NDArray[np.int64]
) -> str:
    """Return a hash of the settings and of who is in which fold."""
    listed = hashlib.sha256(json.dumps(settings.to_json(), sort_keys=True).encode())
    for photo, fold in zip(usable, numbers.tolist(), strict=True):
        size = photo.path.stat().st_size
        listed.update(f"\n{fold} {photo.path.name} {photo.label} {size}".encode())
    return listed.hexdigest()


def _done(folder: Path, digest: str) -> list[dict[str, dict[str, float]]]:
    """Return the scores of the folds that are finished. Raises CheckpointError."""
    path = folder / results.FOLDS_FILE
    try:
        entry = json_schema.parse(path.read_bytes())
        _PROGRESS(entry, "")
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is no training of folds; leave --folds out to --resume it, or choose "
            "another -o"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); start anew with --overwrite"
        ) from None
    if entry["digest"] != digest:
        raise CheckpointError(
            f"{folder} is of folds with other settings or other photos; give the same ones to "
            "--resume, or start anew with another -o"
        )
    return list(entry["each"])
