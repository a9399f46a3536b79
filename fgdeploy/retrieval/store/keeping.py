"""Keeping derived files in step with the database: grown tails, repairs, what was left over."""

from __future__ import annotations

from dataclasses import replace

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.core.progress import Notify, Progress, no_progress
from fgdeploy.retrieval.store import derived
from fgdeploy.retrieval.store.embedding_file import EmbeddingFileError
from fgdeploy.retrieval.store.embeddings import Embeddings
from fgdeploy.retrieval.store.segment import SegmentError
from fgdeploy.retrieval.store.session import Session
from fgdeploy.retrieval.store.snapshot import Reader
from fgdeploy.retrieval.store.thumbnails import Thumbnails
from fgdeploy.retrieval.store.verifying import MISSING, Problem, inspect


class Keeper:
    """Writes the derived files of one index. notify: told when something had to be made again."""

    def __init__(
        self,
        session: Session,
        reader: Reader,
        embeddings: Embeddings,
        thumbnails: Thumbnails,
        notify: Notify,
    ) -> None:
        self._session, self._reader, self._notify = session, reader, notify
        self._embeddings, self._thumbnails = embeddings, thumbnails
        self._folder = session.root

    def roll(self) -> None:
        """Write the tail as a segment when it has grown; if that fails, all is still safe."""
        with self._session.reading() as connection:
            if derived.tail_rows(connection) < derived.TAIL_ROWS:
                return
        try:
            with self._session.transaction() as connection:
                derived.roll(connection, self._folder, self._reader)
        except SegmentError as error:
            self._again(error)
        except OSError as error:
            self._notify(
                f"{self._folder}: no segment could be written ({error.strerror}); all items are "
                "safe, searching is slower until: fgdeploy index compact"
            )
        else:
            self.clear()

    def compact(self, progress: Progress, multi_index: bool | None) -> None:
        """Write all codes anew, from undamaged derived files; arguments as `rebuild`'s.

        Then the embeddings, where they are whole: damaged ones stay as they are.
        """
        try:
            with self._session.transaction() as connection:
                derived.compact(connection, self._folder, self._reader, progress, multi_index)
        except SegmentError as damage:
            self._again(damage, progress, multi_index)
        finally:
            self.clear()
        try:
            with self._session.transaction() as connection:
                self._embeddings.compact(connection)
        except EmbeddingFileError as error:
            self._notify(
                f"{self._folder}: {error}; embeddings were left as they were; make them again "
                f"with: fgdeploy index embed {self._folder}"
            )
        finally:
            self.clear()

    def verify(self, bits: int, progress: Progress) -> list[Problem]:
        """Check everything, as `Index.verify`; make what is derived from the database anew."""
        folder = self._session.root
        with self._session.reading() as connection:
            found, stale = inspect(connection, self._reader, folder, bits, progress)
            if any(problem.fatal for problem in found):
                return found  # nothing is repaired over damage
            embeddings = self._embeddings.inspect(connection)
            lost = [] if embeddings is None else [embeddings]
            lost += self._thumbnails.inspect(connection)
        if self._session.writable:
            if stale:
                self.rebuild()
            self.clear()
            found = [replace(one, repaired=not one.what.endswith(MISSING)) for one in found]
        return [*found, *(Problem(what, fatal=False) for what in lost)]

    def rebuild(
        self,
        progress: Progress = no_progress,
        multi_index: bool | None = None,
    ) -> None:
        """Write all codes anew, from the database alone; arguments as in `derived.rebuild`."""
        try:
            with self._session.transaction() as connection:
                derived.rebuild(connection, self._folder, self._reader, progress, multi_index)
        finally:
            self.clear()

    def heal(self, damage: SegmentError) -> None:
        """Make damaged derived files anew if this process may, and say what was done."""
        if self._session.writable:
            try:
                with self._session.locked(wait_s=0):
                    self._again(damage)
                return
            except OSError:
                pass  # said below
            except IndexStoreError as error:
                if "another process" not in str(error):
                    raise
        self._notify(
            f"{self._folder}: {damage}; searching the database itself, which is slower; "
            "run where it can be written: fgdeploy index verify"
        )

    def _again(
        self,
        damage: SegmentError,
        progress: Progress = no_progress,
        multi_index: bool | None = None,
    ) -> None:
        self.rebuild(progress, multi_index)
        self._notify(f"{self._folder}: {damage}; made again from the database")

    def clear(self) -> None:
        """Remove the files that nobody needs."""
        with self._session.reading() as connection:
            derived.clear(derived.left_over(connection, self._folder))
