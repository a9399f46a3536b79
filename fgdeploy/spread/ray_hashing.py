"""Photos to a file of codes on a Ray cluster: the file that one machine writes, shard by shard."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.code_table import CodeTable, LocalOriginals, Rows
from fgdeploy.core.errors import DataError, EngineError, UsageError
from fgdeploy.core.part_file import PartFile
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted, one_line
from fgdeploy.engines import BACKENDS
from fgdeploy.engines.choosing import default_engine
from fgdeploy.hash_to_file import FileRun, about, finish
from fgdeploy.photos import Photo, skipped_of
from fgdeploy.spread.actor_plan import ActorPlan
from fgdeploy.spread.gathering import Gathering
from fgdeploy.spread.hash_actor import HashActor, Opened, Task, error_of, try_out
from fgdeploy.spread.ray_cluster import ray_cluster
from fgdeploy.spread.shard_folder import ShardFolder
from fgdeploy.spread.stored_photos import StoredPhotos, public

SHARD = 5_000  # photos
_PIECE = 512  # photos that a worker gets at once, at most
_PIECES = 4  # that each worker gets at least, so that they end together
_RETRIES = 3  # of a piece whose worker died
_TOLD_S = 30.0  # of waiting, between two lines about it


@dataclass(frozen=True)
class Spreading:
    """How a work is cut and run.

    address: of a Ray cluster; None: this machine's cores. shard: photos of a file that an
    interrupted run keeps. actors: workers, by default all that the cluster holds. threads: of a
    worker, by default 1. backend, batch, fallback, bit_depth: as for `load`.
    """

    address: str | None = None
    shard: int = SHARD
    actors: int | None = None
    threads: int | None = None
    backend: str = "auto"
    batch: int | None = None
    fallback: bool = False
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        for name in ("shard", "actors", "threads", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}: expected at least 1")


@dataclass(frozen=True)
class SpreadRun(FileRun):
    """What one run did on a cluster, and with what.

    actors: workers; lost: workers that died after an answer and were replaced; shards: of the work.
    """

    actors: int
    lost: int
    shards: int

    def extras(self) -> dict[str, int]:
        """Return what a cluster counts."""
        return {"workers": self.actors, "workers_lost": self.lost, "shards": self.shards}


def hash_on_ray(
    bundle: Path,
    photos: Sequence[Photo] | StoredPhotos,
    target: Path,
    source: Path | str,
    spreading: Spreading = Spreading(),
    strict: bool = False,
    again: bool = False,
    progress: Progress = no_progress,
    notify: Notify = silent,
) -> SpreadRun:
    """Hash photos on a Ray cluster into the .npz file that `hash_to_file` writes.

    Rows come back in any order, with their positions, and the file is in the order of the list.
    Each finished shard is a file in `target`.shards; a run that ended, by whatever, is gone on
    with, and photos that changed since or could not be read are hashed again. A worker that dies is
    replaced and its photos are hashed again. bundle, photos: at the same place on every machine, or
    photos in a store (`list_store`). All else as for `hash_to_file`. Raises MissingDependency, and
    EngineError where workers fail.
    """
    if not len(photos):
        raise DataError("there are no photos to hash; check the list")
    opened_bundle = open_bundle(bundle)
    task = _task(opened_bundle, photos, spreading, strict)
    with ray_cluster(spreading.address) as ray:
        on_gpu = _on_gpu(opened_bundle, spreading.backend)
        plan = ActorPlan.of(ray.cluster_resources(), on_gpu, spreading.actors, spreading.threads)
        opened = _try_out(ray, task, plan, notify)
        if opened.reason not in ("", "none built"):
            notify(f"engine: {opened.engine}, {opened.reason}")
        work = _Work(ray, task, opened, plan, photos, spreading.shard)
        return work.run(target, source, again, progress, notify)


def _task(
    bundle: Bundle, photos: Sequence[Photo] | StoredPhotos, spreading: Spreading, strict: bool
) -> Task:
    relative = not isinstance(photos, StoredPhotos) and not all(
        one.path.is_absolute() for one in photos
    )
    return Task(
        os.path.abspath(bundle.path),
        os.getcwd() if relative else "",
        spreading.backend,
        spreading.threads or 1,
        spreading.batch,
        spreading.fallback,
        spreading.bit_depth,
        photos.address if isinstance(photos, StoredPhotos) else "",
        photos.root if isinstance(photos, StoredPhotos) else "",
        strict,
    )


def _on_gpu(bundle: Bundle, backend: str) -> bool:
    """Tell whether the engine to run needs a GPU; by default it is the best one here."""
    name = backend.partition(":")[0]
    if name == "auto":
        try:
            name = default_engine(bundle)[0].partition(":")[0]
        except EngineError:  # which the workers say in their words
            return False
    return name in BACKENDS and BACKENDS[name].gpu


def _try_out(ray: Any, task: Task, plan: ActorPlan, notify: Notify) -> Opened:
    """Open the engine once on the cluster, so that what is wrong shows before all begins."""
    remote = ray.remote(num_cpus=plan.cpus, num_gpus=plan.gpus, max_retries=1)(try_out)
    with _failing():
        waiting = remote.remote(task)
        while not ray.wait([waiting], timeout=_TOLD_S)[0]:
            notify("waiting for the cluster to start a worker; see: ray status")
        answer = ray.get(waiting)
    if isinstance(answer, Opened):
        return answer
    raise error_of(*answer)


@dataclass(frozen=True)
class _Work:
    """Photos, and what hashes them."""

    ray: Any
    task: Task
    opened: Opened
    plan: ActorPlan
    photos: Sequence[Photo] | StoredPhotos
    shard: int

    def run(
        self, target: Path, source: Path | str, again: bool, progress: Progress, notify: Notify
    ) -> SpreadRun:
        opened, photos = self.opened, self.photos
        originals = photos if isinstance(photos, StoredPhotos) else LocalOriginals(photos)
        words = {
            **about(
                public(source) if isinstance(source, str) else source,
                opened.fingerprint,
                opened.engine,
                opened.bit_depth,
            ),
            "list": _digest([originals.key(row) for row in range(len(originals))]),
            "photos a shard": str(self.shard),
        }
        with PartFile(target, words, again) as part:
            for _ in part.records():  # of a run without Ray there is none, as the words differ
                raise DataError(f"{part.path} is of a run without --ray; drop it with: --again")
            shards = ShardFolder(target, words)
            if again:
                shards.remove()
            table = CodeTable(originals, opened.code_bytes)
            earlier = table.recall(shards.bodies())
            if earlier:
                notify(
                    f"going on: {earlier:,} of {counted(len(photos), 'photo')} are in "
                    f"{shards.path} (--again drops them)"
                )
            gathering = Gathering(photos, table, shards, self.shard, self.task.strict)
            skipped = [*_skipped(photos)]
            start = time.monotonic()
            try:
                self._gather(gathering, progress)
                seconds = time.monotonic() - start
                skipped += gathering.skipped()
                finish(table, opened.bits, opened.fingerprint, skipped, target)
            except BaseException:
                gathering.keep()
                if table.done.any():
                    notify(f"the codes so far are kept in {shards.path}; the same command goes on")
                else:
                    part.remove()
                    shards.remove()
                raise
            shards.remove()
            part.remove()
        count = -(-len(photos) // self.shard)
        lost = max(0, len(gathering.workers) - self.plan.actors)
        made_by = (opened.bits, opened.fingerprint, opened.engine)
        spread = (self.plan.actors, lost, count)
        return SpreadRun(int(table.done.sum()), earlier, skipped, seconds, *made_by, *spread)

    def _gather(self, gathering: Gathering, progress: Progress) -> None:
        with _failing():
            for answer in self._answers(gathering.rest):
                gathering.take(answer)
                progress(gathering.told, len(gathering.rest))
        if gathering.told < len(gathering.rest):
            raise EngineError(
                f"Ray gave back {gathering.told:,} of "
                f"{counted(len(gathering.rest), 'photo')}; the same "
                "command hashes the others"
            )

    def _answers(self, rest: Rows) -> Iterator[Any]:
        """Yield what the workers make of rows, a piece at a time, in no order."""
        if not len(rest):
            return
        data = self.ray.data
        cut = list(self._pieces(rest))
        pieces = data.from_arrow(cut)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about how retries are said
            found = pieces.map_batches(
                HashActor,
                fn_constructor_args=(self.task, self.opened),
                batch_size=None,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(size=min(self.plan.actors, len(cut))),
                num_cpus=self.plan.cpus,
                num_gpus=self.plan.gpus,
                **_retries(pieces),
            )
        yield from found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)

    def _pieces(self, rest: Rows) -> Iterator[Any]:
        """Yield tables of positions and names, each of one shard."""
        import pyarrow as pa

        photos = self.photos
        each = -(-len(rest) // (self.plan.actors * _PIECES))
        size = min(_PIECE, max(each, self.task.batch or 8))
        for rows in np.split(rest, np.flatnonzero(np.diff(rest // self.shard)) + 1):
            for start in range(0, len(rows), size):
                positions = rows[start : start + size]
                names = [
                    photos.paths[row].encode()
                    if isinstance(photos, StoredPhotos)
                    else os.fsencode(photos[row].path)
                    for row in positions.tolist()
                ]
                yield pa.table({"position": positions, "name": pa.array(names, pa.binary())})


def _retries(pieces: Any) -> dict[str, int]:
    """Return how often to run a piece again whose worker died, as a photo may kill each of them.

    Ray up to 2.63 takes it so; without a word it tries for ever.
    """
    known = inspect.signature(pieces.map_batches).parameters.values()
    takes = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known)
    return {"max_restarts": -1, "max_task_retries": _RETRIES} if takes else {}


def _skipped(photos: Sequence[Photo] | StoredPhotos) -> Sequence[str]:
    return photos.skipped if isinstance(photos, StoredPhotos) else skipped_of(photos)


def _digest(keys: Sequence[bytes]) -> str:
    """Return what stands for a list in its order."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(len(key).to_bytes(4, "little") + key)
    return digest.hexdigest()


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Say in one line what Ray says in many."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise EngineError(
            f"the cluster failed: {one_line(lines[-1], 300)}; the same command goes on"
        ) from error
