"""Where the object of each photo is, by a detector of the transformers library.

Zero-shot detectors (GroundingDINO, OWL-ViT) look for what a prompt names; others for the classes
that they know, or those of them that the prompt names. The surest box of a photo is kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fgdeploy.core import atomic
from fgdeploy.core.errors import (
    CheckpointError,
    DataError,
    ImageError,
    MissingDependency,
    UsageError,
)
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.photos import Photo, decode
from fgdeploy.photos.box_files import COLUMNS
from fgdeploy.photos.images import upright_size

LEAST = 800  # pixels of the short side that a detector is given of a large JPEG
_DOTTED = ("grounding-dino", "mm-grounding-dino")  # these ask for phrases that end in a dot


@dataclass(frozen=True)
class Wanted:
    """What to look for, and with what. threshold: least score, 0 to 1; prompt: what the object is.

    detector: a folder that transformers saved, or a name on its hub.
    """

    detector: str
    prompt: str | None = None
    threshold: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--threshold {self.threshold}: expected a number from 0 to 1")
        if self.prompt is not None and not self.prompt.strip():
            raise UsageError("--prompt: expected a word or two, such as bird")


@dataclass(frozen=True)
class Detected:
    """What was found: photos with a box, photos without one, and reasons for those left out."""

    boxes: int
    without: int
    skipped: tuple[str, ...]


class Detector:
    """A detector and its prompt. Raises what the module says, and MissingDependency."""

    def __init__(self, wanted: Wanted) -> None:
        try:
            import transformers
        except ImportError:
            raise MissingDependency("transformers", "detect", "finding objects") from None
        transformers.utils.logging.disable_progress_bar()  # there is one of our own
        transformers.utils.logging.set_verbosity_error()
        self._wanted = wanted
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            config = transformers.AutoConfig.from_pretrained(wanted.detector)
        except Exception as error:  # the library and its hub client raise many kinds
            raise _unreadable(wanted.detector, error) from None
        self._named = type(config) in transformers.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING
        if not self._named and type(config) not in transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING:
            raise CheckpointError(
                f"--detector {wanted.detector} is a {config.model_type}, which detects no objects; "
                "choose one such as IDEA-Research/grounding-dino-tiny"
            )
        if self._named and wanted.prompt is None:
            raise UsageError(
                f"--detector {wanted.detector} looks for what it is told; add --prompt, such as "
                "--prompt bird"
            )
        self._classes = None if self._named else self._of_prompt(config.id2label)
        kind = (
            transformers.AutoModelForZeroShotObjectDetection
            if self._named
            else transformers.AutoModelForObjectDetection
        )
        reader = transformers.AutoProcessor if self._named else transformers.AutoImageProcessor
        try:
            self._model = kind.from_pretrained(wanted.detector).eval().to(self._device)
            self._reader = reader.from_pretrained(wanted.detector)
        except Exception as error:
            raise _unreadable(wanted.detector, error) from None
        self._dot = "." if config.model_type in _DOTTED else ""

    def _of_prompt(self, names: dict[int, str]) -> set[int] | None:
        """Return the classes whose names have the prompt among their words; None for all."""
        if self._wanted.prompt is None:
            return None
        prompt = self._wanted.prompt.strip().lower()
        found = {number for number, name in names.items() if prompt in name.lower().split()}
        found |= {number for number, name in names.items() if prompt == name.lower()}
        if not found:
            some = ", ".join(list(names.values())[:6])
            raise UsageError(
                f"--prompt {prompt}: the detector knows {len(names)} names of classes, such as "
                f"{some}, and not this one; choose one of its own, or leave it out"
            )
        return found

    def surest(self, images: Sequence[Image.Image]) -> list[tuple[list[float], float] | None]:
        """Return the surest box of each RGB image and its score, None for none.

        A box: x0, y0, x1, y1 in fractions of the image's sides, within 0 to 1.
        """
        given: dict[str, Any] = {"images": list(images), "return_tensors": "pt"}
        if self._named:
            words = f"{(self._wanted.prompt or '').strip().lower().rstrip('.')}{self._dot}"
            # one text an image for the first kind, a list of texts an image for the others
            texts: list[Any] = [words] * len(images) if self._dot else [[words]] * len(images)
            given |= {"text": texts, "padding": True}
        with torch.inference_mode():
            inputs = self._reader(**given).to(self._device)
            outputs = self._model(**inputs)
            tool = self._reader.image_processor if self._named else self._reader
            found = tool.post_process_object_detection(
                outputs,
                threshold=self._wanted.threshold,
                target_sizes=[(image.height, image.width) for image in images],
            )
        return [self._best(one, image) for one, image in zip(found, images, strict=True)]

    def _best(self, found: Any, image: Image.Image) -> tuple[list[float], float] | None:
        sides = (image.width, image.height) * 2
        best: tuple[list[float], float] | None = None
        for box, score, label in zip(
            found["boxes"].tolist(), found["scores"].tolist(), found["labels"], strict=True
        ):
            if self._classes is not None and int(label) not in self._classes:
                continue
            within = [min(1.0, max(0.0, at / side)) for at, side in zip(box, sides, strict=True)]
            has_area = within[2] > within[0] and within[3] > within[1]  # no NaN has
            if has_area and (best is None or score > best[1]):
                best = within, score
        return best


def _unreadable(name: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return CheckpointError(
        f"--detector {name}: transformers cannot read it ({reason}); give a folder that it saved, "
        "or a name on its hub with a network"
    )


def detect(
    photos: Sequence[Photo],
    source: Path,
    wanted: Wanted,
    target: Path,
    batch: int = 8,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Detected:
    """Write the surest box of each photo to the CSV `target`: path,x0,y0,x1,y1,score in pixels.

    Pixels are of the upright photo; paths are relative to `source` where they lie in it. The file
    appears whole; what is done lies in TARGET.part until then, from where `resume` goes on.
    Raises DataError where no photo has a box, and what `Detector` raises.
    """
    part = _check(target, resume, overwrite)
    done = _done(part, wanted) if resume and part.is_file() else {}
    detector = Detector(wanted)
    names = {_name(photo.path, source): photo for photo in photos}
    left = [(name, photo) for name, photo in names.items() if name not in done]
    with open(part, "a" if done else "w", encoding="utf-8") as stream:
        if not done:
            stream.write(json.dumps(asdict(wanted)) + "\n")
        for start in range(0, len(left), batch):
            for name, found in _looked(detector, left[start : start + batch]):
                done[name] = found
                stream.write(json.dumps([name, found]) + "\n")
            stream.flush()
            progress(len(done), len(names))
    rows = [(name, *done[name]) for name in names if isinstance(done[name], list)]
    if not rows:
        part.unlink()
        raise DataError(
            f"no {wanted.prompt or 'object'} found in {len(names)} of the photos of {source}; try "
            "another --prompt or a lower --threshold"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    atomic.write_text(target, text.getvalue())
    part.unlink()
    skipped = tuple(found for found in done.values() if isinstance(found, str))
    return Detected(len(rows), len(names) - len(rows) - len(skipped), skipped)


def part_of(target: Path) -> Path:
    """Return where a run keeps what it has done so far."""
    return target.with_name(f"{target.name}.part")


def _check(target: Path, resume: bool, overwrite: bool) -> Path:
    if target.suffix != ".csv" or not target.parent.is_dir():
        raise UsageError(f"-o {target}: expected a name ending in .csv in a folder that exists")
    if target.exists() and not overwrite:
        raise DataError(f"{target} is there already; pass --overwrite, or another -o")
    part = part_of(target)
    if part.exists() and not (resume or overwrite):
        raise DataError(
            f"{part} is of a run that was interrupted; pass --resume to go on, or --overwrite to "
            "start anew"
        )
    return part


def _done(part: Path, wanted: Wanted) -> dict[str, Any]:
    """Return what a run had done: box and score, None or a reason by name. Raises DataError."""
    head, *rows = part.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    try:
        before, entries = json.loads(head or "null"), [json.loads(row) for row in rows]
        found = {str(name): value for name, value in entries}
    except (ValueError, TypeError):
        raise DataError(f"{part} is damaged; pass --overwrite to start anew") from None
    if before is not None and before != asdict(wanted):
        raise DataError(
            f"{part} is of a run with other options ({head[:120]}); give the same to --resume, or "
            "pass --overwrite to start anew"
        )
    return found


def _name(path: Path, source: Path) -> str:
    root = source if source.is_dir() else source.parent
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _looked(detector: Detector, some: Sequence[tuple[str, Photo]]) -> Iterator[tuple[str, Any]]:
    """Yield for each photo its box in pixels and score, None, or why it cannot be read."""
    images: list[Image.Image] = []
    sizes: list[tuple[str, tuple[int, int]]] = []
    answers: dict[str, Any] = {}
    for name, photo in some:
        try:
            images.append(decode(photo.path, LEAST, photo.reading))
            sizes.append((name, upright_size(photo.path)))
        except ImageError as error:
            del images[len(sizes) :]
            answers[name] = str(error)
    for (name, (width, height)), best in zip(
        sizes, detector.surest(images) if images else [], strict=True
    ):
        if best is None:
            answers[name] = None
            continue
        pixels = [
            round(at * side, 1) for at, side in zip(best[0], (width, height) * 2, strict=True)
        ]
        flat = pixels[2] <= pixels[0] or pixels[3] <= pixels[1]
        answers[name] = None if flat else [*pixels, round(best[1], 4)]
    yield from ((name, answers[name]) for name, _ in some)
