"""What schedules cost in mAP: the same weights and photos, untrained or after the recipe `fast`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import DataError
from fgdeploy.core.progress import Notify, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.evaluation.metrics import mean_average_precision
from fgdeploy.export.hash_head import DEFAULT_BITS
from fgdeploy.models import assembly as assemblies
from fgdeploy.models.assembly import Assembly, NetworkSettings
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.heads.projection import fit_itq
from fgdeploy.models.network import Network
from fgdeploy.photos import Photo, of_split, read, spread
from fgdeploy.training.objective import STUDENT
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter
from fgdeploy.training.trainer import train as run_training
from fgdeploy.tuning.tune_settings import TuneSettings

_FEWEST = 8  # queries, and gallery: fewer tell nothing
_FITS = 3  # heads fitted from different seeds: one alone moves mAP by half a point
_PROTOCOLS = ("asym_sign", "symmetric")


@dataclasses.dataclass(frozen=True)
class Judges:
    """The photos that judge: queries against a gallery, or each against all others (no gallery)."""

    queries: tuple[Photo, ...]
    gallery: tuple[Photo, ...]

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> Judges:
        """Divide labelled photos as `eval` does. Raises DataError for those that cannot judge."""
        if unlabelled := sum(photo.label is None for photo in photos):
            raise DataError(
                f"{counted(unlabelled, 'photo')} without a class; tuning measures retrieval by "
                "classes: give a folder of classes, or a CSV (path,class,split)"
            )
        if any(photo.split for photo in photos):
            found = cls(tuple(of_split(photos, "test")), tuple(of_split(photos, "train")))
        else:
            found = cls(tuple(photos), ())
        sides = [side for side in (found.queries, found.gallery or None) if side is not None]
        if min(map(len, sides)) < _FEWEST:
            given = " and ".join(counted(len(side), "photo") for side in sides)
            raise DataError(
                f"{given}: too few to measure "
                f"what a schedule costs; expected {_FEWEST} or more, give a few hundred"
            )
        if len({photo.label for photo in found.queries}) < 2:
            raise DataError("all queries are of one class, so every ranking is perfect; add others")
        if found.gallery and not {p.label for p in found.queries} & {
            p.label for p in found.gallery
        }:
            raise DataError("no query has a photo of its class in the gallery; check the splits")
        return found

    def some(self, count: int, seed: int) -> Judges:
        """Return at most `count` of them, half of each side, spread over the classes."""
        if not self.gallery:
            return Judges(tuple(spread(self.queries, count, seed)), ())
        half = count // 2
        return Judges(
            tuple(spread(self.queries, half, seed)), tuple(spread(self.gallery, half, seed))
        )

    @property
    def count(self) -> int:
        """Return how many photos there are."""
        return len(self.queries) + len(self.gallery)


class Trials:
    """Scores of schedules by mAP, each computed once; a photo that cannot be read is an error."""

    def __init__(self, settings: TuneSettings, notify: Notify = silent) -> None:
        self.settings, self.notify = settings, notify
        photos = read(settings.data, None, settings.columns)
        self.judges = Judges.of(photos).some(settings.images, settings.seed)
        self._scores: dict[tuple[tuple[tuple[str, str], ...], int], float] = {}
        self._runs: dict[tuple[tuple[str, str], ...], tuple[Path, float]] = {}

    def score(self, options: Mapping[str, str], count: int) -> float:
        """Return mAP (0..1) of the untrained network with these options, on `count` photos."""
        key = (tuple(sorted(options.items())), count)
        if key not in self._scores:
            network = dataclasses.replace(network_settings(self.settings), options=options)
            self._scores[key] = self._measure(assemblies.choose(network), count)
        return self._scores[key]

    def train(self, options: Mapping[str, str], folder: Path) -> tuple[Path, float]:
        """Train a network with these options; return the run and its mAP on photos held out."""
        key = tuple(sorted(options.items()))
        if key not in self._runs:
            given = self.settings
            wanted = TrainSettings(
                data=given.data,
                method=given.method,
                backbone=given.backbone,
                weights=given.weights,
                image_size=given.image_size,
                options=options,
                bits=given.bits or DEFAULT_BITS,
                epochs=given.epochs,
                columns=given.columns,
                seed=given.seed,
            )
            done = run_training(wanted, folder, reporter=Reporter(notify=self.notify))
            scores = done.scores[STUDENT]
            name = next((one for one in _PROTOCOLS if one in scores), None)
            if name is None:
                raise DataError("no photos were held out, so nothing judges a training; add some")
            self._runs[key] = (folder, float(scores[name]["map"]))
        return self._runs[key]

    def _measure(self, assembly: Assembly, count: int) -> float:
        """Score a network: by the codes of its trained head, or of heads fitted to its gallery."""
        judges = self.judges.some(count, self.settings.seed)
        sides = [side for side in (judges.queries, judges.gallery) if side]
        labels = [np.array([photo.label for photo in side], dtype=np.str_) for side in sides]
        encoder, source = assembly.encoder(), assembly.source
        head = None
        if source.state is not None:
            kind, bits = assembly.method.head, self.settings.bits
            head = kind.from_state(source.state, encoder.width, bits, source.name)
        network = Network(encoder, head or NoHead(), assembly.options).eval().requires_grad_(False)
        embedder = Embedder(assembly.preprocess)
        if head is not None:
            codes = [embedder.codes(network.deployed(), side, no_progress) for side in sides]
            return mean_average_precision(
                *(codes[0], labels[0], codes[-1], labels[-1], len(sides) == 1)
            )
        rows = [embedder.embeddings(network.deployed(), side, no_progress) for side in sides]
        given = self.settings
        return mean_of_fits(
            *((rows[0], labels[0]), (rows[-1], labels[-1]), len(sides) == 1),
            *(given.bits or DEFAULT_BITS, given.seed),
        )


Side = tuple[npt.NDArray[np.float32], npt.NDArray[np.str_]]


def mean_of_fits(queries: Side, gallery: Side, same: bool, bits: int, seed: int) -> float:
    """Return mAP of codes of embeddings and labels, the mean over heads from several seeds.

    Heads are fitted (ITQ) on the gallery, as an export fits them on its training photos.
    """
    found = []
    for draw in range(_FITS):
        projection = fit_itq(gallery[0], bits, seed + draw)
        codes: list[UInt8Array] = [
            np.packbits(projection.hash(side[0]) > 0, axis=1) for side in (queries, gallery)
        ]
        found.append(mean_average_precision(codes[0], queries[1], codes[1], gallery[1], same))
    return float(np.mean(found))


def network_settings(settings: TuneSettings) -> NetworkSettings:
    """Return which network is tuned, its schedule not yet chosen."""
    named = settings.weights in ("pretrained", "random")
    return NetworkSettings(
        method=settings.method,
        options=settings.options,
        backbone=settings.backbone,
        image_size=settings.image_size,
        checkpoint=None if named else Path(settings.weights),
        weights=settings.weights if named else "pretrained",
        seed=settings.seed,
    )
