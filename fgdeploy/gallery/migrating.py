"""A new model for an index without a dark hour: all items hashed anew beside it, then a switch.

The new index grows in a hidden folder beside the running one, `.NAME.fgi.migrating`. What is in
it is safe after any end, and the next run goes on from there. At last both folders change places in
one step, and the old index is kept as `NAME.fgi.old`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError, DataError, IndexStoreError
from fgdeploy.core.exchange import can_exchange
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.gallery import threshold
from fgdeploy.gallery.rehashing import Rehasher, RehashReport
from fgdeploy.gallery.throttling import Throttle
from fgdeploy.hasher import Hasher
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store import lock
from fgdeploy.retrieval.store.succession import (
    Succession,
    put_aside,
    quiet,
    require_index,
    switch,
)

SHARE = 0.5  # of the time, so that a camera beside it keeps its frames
AT_ONCE = 32  # photos between two rests, and what a killed run does again at most
_LAST = 64  # items that may be left when the old index's writers have to wait
_PATIENCE_S = 60.0  # for the old index's lock, which others hold a batch long
_NOTES, _NEXT = "migration.json", "next.fgi"


@dataclass
class MigrationReport:
    """What became of a migration. items: in the new index; before: hashed by earlier runs.

    switched: whether the new index is in place; needless: it was of this model already. kept: where
    the old one lies now. rehashed: what this run did.
    """

    path: Path
    items: int = 0
    before: int = 0
    switched: bool = False
    needless: bool = False
    kept: Path | None = None
    rehashed: RehashReport = field(default_factory=RehashReport)


def old_of(path: Path) -> Path:
    """Return where the index that was replaced at a path is kept."""
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    return real.with_name(f"{real.name}.old")


def migrate(
    path: Path,
    hasher: Hasher,
    *,
    drop_missing: bool = False,
    keep_old: bool = True,
    throttle: Throttle | None = None,
    progress: Progress = no_progress,
    notify: Notify = silent,
) -> MigrationReport:
    """Hash all items of an index anew and put the new index in its place; goes on where a run
    before it ended.

    Photos count where their sha256 is the item's, else the item's thumbnail does. Items with
    neither are in the report; there is no switch then but with `drop_missing`. keep_old: keep the
    old index at `old_of(path)`. throttle: how much of the time to take, default SHARE. Raises
    IndexStoreError, BundleError for a bundle without the embeddings that the index keeps.
    """
    real = Path(os.path.realpath(path))
    place = real.with_name(f".{real.name}.migrating")
    with Index.open(path, notify) as old, _alone(old, place):
        _finish(old, place, notify)
        if old.fingerprint == hasher.fingerprint:
            shutil.rmtree(place / _NEXT, ignore_errors=True)
            kept = old_of(path) if old_of(path).exists() else None
            return MigrationReport(path, len(old), needless=True, kept=kept)
        require_index(old_of(path))
        if not _exchangeable(old, place):
            raise IndexStoreError(
                f"{path}: the file system cannot exchange two folders at once (renameat2), so a "
                "reader might find none; move the index to another one, such as ext4"
            )
        with _begun(old, hasher, place, notify) as fresh:
            work = _Migration(old, fresh, hasher, throttle or Throttle(SHARE), progress, notify)
            report = MigrationReport(path, before=len(fresh), rehashed=work.rehasher.report)
            done = work.run(place / _NEXT, drop_missing)
            report.items = len(old) if not done else work.items
        if done:
            report.switched = True
            report.kept = _tidy(path, place, keep_old, notify)
        return report


class _Migration:
    """One run, from what is in the new index already up to the switch."""

    def __init__(
        self,
        old: Index,
        fresh: Index,
        hasher: Hasher,
        throttle: Throttle,
        progress: Progress,
        notify: Notify,
    ) -> None:
        self._old, self._fresh, self._hasher = old, fresh, hasher
        self._throttle, self._progress, self._notify = throttle, progress, notify
        self.rehasher = Rehasher(old, fresh, hasher)
        self.items = 0

    def run(self, place: Path, drop_missing: bool) -> bool:
        """Work until nothing is left, then switch; returns whether the new index is in place."""
        with Succession(self._old, self._fresh) as both:
            while True:
                while self._catch_up(both, resting=True) > _LAST:
                    pass
                if self.rehasher.report.lacking and not drop_missing:
                    return False
                if both.has_tables():
                    self._fresh.compact(multi_index=True)
                self._measure_threshold()
                with quiet(self._old, _PATIENCE_S):
                    left = self._catch_up(both, resting=False, most=_LAST)
                    if left > _LAST:
                        continue
                    if self.rehasher.report.lacking and not drop_missing:
                        return False
                    self._require_same_form()
                    both.hand_over()
                    self._fresh.remember_bundle(self._hasher.bundle.path)
                    self.items = len(self._fresh)
                    both.close()
                    self._fresh.close()
                    switch(self._old, place)
                    return True

    def _catch_up(self, both: Succession, resting: bool, most: int | None = None) -> int:
        """Bring what the new index lacks, but no more than `most`; returns how many there were."""
        count, last = 0, -1
        self._throttle.begin()
        while ids := both.lacking(last, AT_ONCE):
            count, last = count + self.rehasher.bring(ids), ids[-1]
            if most is not None and count > most:
                return count
            done, total = len(self._fresh) + len(self.rehasher.report.lacking), len(self._old)
            self._progress(min(done, total), total)
            if resting:
                self._throttle.rest()
        last = -1
        while ids := both.pictures(last, AT_ONCE):
            self.rehasher.copy_pictures(ids)
            last = ids[-1]
            if resting:
                self._throttle.rest()
        self._forget_removed(both)
        return count

    def _forget_removed(self, both: Succession) -> None:
        if surplus := both.surplus():
            self._fresh.remove(surplus)
        lacking = self.rehasher.report.lacking
        gone = set(lacking) - set(self._old.by_id(lacking)) if lacking else set()
        for number in gone:
            del lacking[number]

    def _measure_threshold(self) -> None:
        """Find the new model's threshold where the old index has one of its own."""
        if (before := threshold.of(self._old)) is None:
            return
        try:
            settings = threshold.ThresholdSettings(before.accept)
            threshold.keep(self._fresh, threshold.measure(self._fresh, settings))
        except DataError as error:
            self._notify(f"the threshold of before is of the old model, and {error}")

    def _require_same_form(self) -> None:
        forms = [index.embeddings.form for index in (self._old, self._fresh)]
        kinds = [None if form is None else form.kind for form in forms]
        if kinds[0] != kinds[1]:
            raise IndexStoreError(
                f"{self._old.path} keeps embeddings otherwise than when the migration began; run "
                "the command again, which begins anew"
            )


@contextlib.contextmanager
def _alone(old: Index, place: Path) -> Iterator[None]:
    """Make the folder to work in, hold it alone, and remove it where nothing is left in it."""
    with contextlib.ExitStack() as stack:
        try:
            place.mkdir(exist_ok=True)
            stack.enter_context(lock.held(place, 0))
        except OSError as error:
            raise _cannot_begin(old, place, error) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if {entry.name for entry in place.iterdir()} <= {lock.NAME, _NOTES}:
                    shutil.rmtree(place)


def _exchangeable(old: Index, place: Path) -> bool:
    try:
        return can_exchange(place)
    except OSError as error:
        raise _cannot_begin(old, place, error) from error


def _cannot_begin(old: Index, place: Path, error: OSError) -> IndexStoreError:
    return IndexStoreError(
        f"{old.path}: no new index can be made beside it, in {place} ({error.strerror}); nothing "
        "was switched"
    )


def _notes(place: Path) -> dict[str, object]:
    try:
        found = json.loads((place / _NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _finish(old: Index, place: Path, notify: Notify) -> None:
    """Put the old index aside that a run left behind which was killed right after its switch."""
    for entry in list(place.iterdir()):  # what a killed run left half-made
        if entry.name not in (lock.NAME, _NOTES, _NEXT):
            entry.unlink() if entry.is_file() else shutil.rmtree(entry, ignore_errors=True)
    if (place / _NEXT).exists() and _notes(place).get("to") == old.uid:
        kept = _tidy(old.path, place, True, notify)
        notify(f"{old.path}: the old index of the last migration is kept at {kept}")


@contextlib.contextmanager
def _begun(old: Index, hasher: Hasher, place: Path, notify: Notify) -> Iterator[Index]:
    """Give the new index: the one that a run before began, or an empty one."""
    if (fresh := _resumed(old, hasher, place, notify)) is None:
        shutil.rmtree(place / _NEXT, ignore_errors=True)
        try:
            fresh = Index.create(place / _NEXT, hasher.fingerprint, hasher.bits, notify)
            notes = {"from": old.uid, "to": fresh.uid, "fingerprint": hasher.fingerprint}
            atomic.write_text(place / _NOTES, json.dumps(notes))
        except OSError as error:
            raise _cannot_begin(old, place, error) from error
    with fresh:
        if (form := old.embeddings.form) is not None:
            try:
                fresh.embeddings.keep(form.kind, hasher.embedding_width)
            except BundleError as error:
                raise BundleError(
                    f"{error}, or let the index keep none: fgdeploy index embed {old.path} "
                    "--embeddings none"
                ) from None
        yield fresh


def _resumed(old: Index, hasher: Hasher, place: Path, notify: Notify) -> Index | None:
    notes = _notes(place)
    if not (place / _NEXT).exists():
        return None
    begun = f"{old.path}: a migration that was begun"
    if notes.get("fingerprint") != hasher.fingerprint:
        notify(f"{begun} is of another bundle; beginning anew")
        return None
    if notes.get("from") != old.uid:
        notify(f"{begun} is of an index that lay there before; beginning anew")
        return None
    try:
        fresh = Index.open(place / _NEXT, notify)
    except IndexStoreError as error:
        notify(f"{begun} cannot be read ({error}); beginning anew")
        return None
    before, form = fresh.embeddings.form, old.embeddings.form
    kinds = [None if one is None else one.kind for one in (before, form)]
    if fresh.uid != notes.get("to") or (len(fresh) and kinds[0] != kinds[1]):
        fresh.close()
        notify(f"{begun} does not fit the index any more; beginning anew")
        return None
    notify(f"{begun} goes on: {counted(len(fresh), 'item')} of {len(old):,} are done")
    return fresh


def _tidy(path: Path, place: Path, keep_old: bool, notify: Notify) -> Path | None:
    """Keep the old index, which lies in the working folder by now, or remove it."""
    if not keep_old:
        shutil.rmtree(place / _NEXT, ignore_errors=True)
        return None
    try:
        put_aside(place / _NEXT, old_of(path))
    except (OSError, IndexStoreError) as error:
        notify(f"{path}: the new index is in its place; the old one stays where it is: {error}")
        return place / _NEXT
    return old_of(path)


@dataclass(frozen=True)
class BackReport:
    """An index that was taken back. added, removed: items since, which only `kept` knows of."""

    path: Path
    kept: Path
    added: int
    removed: int


def go_back(path: Path, notify: Notify = silent) -> BackReport:
    """Put the index that the last migration replaced back in its place, and keep the other one.

    Done twice, all is as before. Raises IndexStoreError where none is kept.
    """
    aside = old_of(path)
    if not aside.exists():
        raise IndexStoreError(
            f"{path}: no index from before is kept at {aside}; migrate to the bundle of before"
        )
    with Index.open(path, notify) as index, quiet(index):
        with Index.open(aside, notify) as before, Succession(index, before) as both:
            added = len(index) - len(before) + (removed := len(both.surplus()))
            both.hand_over()
        switch(index, aside)
    return BackReport(path, aside, added, removed)
