"""What the service does, whatever brings the requests: hash, search, enrol, remove."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fgdeploy.core import machine
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.core.text import shown
from fgdeploy.gallery import Query, code_queries
from fgdeploy.hasher import Hasher
from fgdeploy.live.hash_worker import Answered, HashWorker
from fgdeploy.live.pair_opener import RETRY_S, Load
from fgdeploy.photos import Decoders, DecodersClosed
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.label_counts import LabelCounts
from fgdeploy.serve import index_requests
from fgdeploy.serve.chained import chain
from fgdeploy.serve.explainer import Explainer
from fgdeploy.serve.index_requests import Asked, Enrolled, HashedUpload, Nearest, Page
from fgdeploy.serve.model_pair import ModelPair, PairKeeper
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.uploads import check_pixels

MOST_ANSWERS = 1000
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_READERS = 4
_ENDING = "the service is ending; send it again later"

_Result = TypeVar("_Result")


class Service(Closing):
    """A hasher and perhaps an index, for any number of threads; it closes both.

    Each call returns a future at once. One thread runs the engine, one writes to the index, some
    decode and some search. What needs an index raises Refusal without one. load: opens the bundle
    of the index that lies there after a migration, with which it goes on then (`model_pair`).
    explainer: says what the model looked at; closed with the service.
    """

    def __init__(
        self,
        hasher: Hasher,
        index: Index | None = None,
        settings: ServeSettings | None = None,
        load: Load | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.settings, self.explainer = settings or ServeSettings(), explainer
        self._keeper = PairKeeper(hasher, index, self.settings, load)
        self._decoders = Decoders()
        readers = max(2, min(_READERS, machine.cores()))
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="search")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="enrol")

    @property
    def worker(self) -> HashWorker:
        """The worker that answers now."""
        return self._keeper.now.worker

    @property
    def hasher(self) -> Hasher:
        """The hasher that answers now."""
        return self.worker.hasher

    @property
    def index(self) -> Index:
        """The index that answers now. Raises Refusal if there is none."""
        return _index(self._keeper.now)

    @property
    def has_index(self) -> bool:
        """Whether it can search."""
        return self._keeper.now.index is not None

    def unready(self) -> str | None:
        """Return why it cannot answer, None if it can."""
        if self.worker.failed is not None:
            return "the engine failed and stopped; the service's log says why"
        if not self._keeper.now.is_current():
            return "the index was closed, moved or replaced"
        return None

    def state(self) -> Future[dict[str, Any]]:
        """Return what answers now. Refusal with the reason where nothing can."""

        def look() -> dict[str, Any]:
            if (why := self.unready()) is not None:
                raise Refusal(503, "not_ready", why)
            pair = self._keeper.now
            hasher, items = pair.hasher, None if pair.index is None else len(pair.index)
            engine = hasher.engine.describe()
            return {"state": "ready", "model": hasher.fingerprint, "engine": engine, "items": items}

        return self.reading(look)

    def about(self) -> Future[dict[str, Any]]:
        """Return the model that answers now, and what can be asked."""

        def look() -> dict[str, Any]:
            pair, settings = self._keeper.now, self.settings
            manifest, index = pair.hasher.manifest, pair.index
            return {
                "method": manifest.method,
                "bits": manifest.bits,
                "index": index is not None,
                "thumbnails": index is not None and index.thumbnails.kept,
                "where": settings.filters,
                "unexplained": self.unexplained(),
                "upload_bytes": settings.upload_bytes,
            }

        return self.reading(look)

    def reading(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Let a thread that searches do it."""
        return _begun(self._readers, work)

    def progress(self) -> object:
        """Return what changes while frames are answered, None while none wait; see Heartbeat.

        It stands still when the engine failed for good: then a new process should start.
        """
        return "failed" if self.worker.failed is not None else self.worker.progress()

    def close(self) -> None:
        """End what runs: the write that has begun is committed, all that waits is given up."""
        self._writer.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self._keeper.close()
        self._decoders.close()
        if self.explainer is not None:
            self.explainer.close()

    def hash(self, image: bytes) -> Future[HashedUpload]:
        """Hash one image file. Its future raises ImageError, Busy or EngineError."""
        return self._keeper.ask(lambda pair: self._hash(pair, image))

    def _hash(self, pair: ModelPair, image: bytes) -> Future[HashedUpload]:
        since = time.monotonic()

        def frame() -> npt.NDArray[np.uint8]:
            check_pixels(image, self.settings.image_pixels)
            return pair.hasher.manifest.preprocess.frame(image)

        def run(made: npt.NDArray[np.uint8]) -> Future[HashedUpload]:
            decode = time.monotonic() - since
            return chain(pair.worker.submit(made), lambda found: _hashed(pair, found, decode))

        return chain(self._decoded(frame, image), run)

    def _decoded(
        self, frame: Callable[[], npt.NDArray[np.uint8]], image: bytes
    ) -> Future[npt.NDArray[np.uint8]]:
        try:
            return self._decoders.submit(lambda source: frame(), image)
        except DecodersClosed as error:
            raise EngineError(_ENDING) from error

    def explain(self, image: bytes) -> Future[dict[str, Any]]:
        """Return what the model looked at in an image (`Explainer`). Refusal where none can say."""
        explainer, model = self.explainer, self.hasher.fingerprint
        if explainer is None or explainer.fingerprint != model:
            raise Refusal(404, "no_explanation", self.unexplained() or "")

        def frame() -> npt.NDArray[np.uint8]:
            check_pixels(image, self.settings.image_pixels)
            return explainer.frame(image)

        return chain(self._decoded(frame, image), explainer.explain)

    def unexplained(self) -> str | None:
        """Return why nothing is said of what the model looked at; None where it can be asked."""
        if self.explainer is None:
            return "the service was started without --explain"
        if self.explainer.fingerprint != self.hasher.fingerprint:
            return "the model was replaced since; start the service again"
        return None

    def search(self, image: bytes, asked: Asked) -> Future[Nearest]:
        """Hash an image and search for it; raises and fails as `hash` and `Index.search` do."""
        self.check(asked)

        def ask(pair: ModelPair) -> Future[Nearest]:
            def find(hashed: HashedUpload) -> Future[Nearest]:
                query = Query("upload", hashed.code)
                return _begun(
                    self._readers, index_requests.search_in, _index(pair), query, asked, hashed
                )

            return chain(self._hash(pair, image), find)

        return self._keeper.ask(ask)

    def search_code(self, code: str, asked: Asked) -> Future[Nearest]:
        """Search for a code in hex digits."""
        self.check(asked)

        def find(index: Index) -> Nearest:
            (query,) = code_queries(index, [code])
            return index_requests.search_in(index, query, asked, None)

        return self._read(find)

    def search_item(self, number: int, asked: Asked) -> Future[Nearest]:
        """Search for what is like an item, which is no answer itself. Refusal for unknown ids."""
        self.check(asked)

        def find(index: Index) -> Nearest:
            query = Query("item", index_requests.item_in(index, number).code, item=number)
            return index_requests.search_in(index, query, asked, None)

        return self._read(find)

    def _read(self, work: Callable[[Index], _Result]) -> Future[_Result]:
        return self._keeper.ask(lambda pair: _begun(self._readers, work, _index(pair)))

    def check(self, asked: Asked) -> None:
        """Raise UsageError or Refusal for a search that is not allowed, or without an index."""
        _ = self.index
        index_requests.check_asked(asked)
        if asked.where is not None and not self.settings.filters:
            words = "SQL expressions are off here; use label, or start the service --allow-where"
            raise Refusal(403, "where", words)

    def thumbnail(self, number: int, sha256: str | None) -> Future[bytes]:
        """Return the JPEG that the index keeps of an item. Refusal where it keeps none."""
        return self._read(lambda index: index_requests.thumbnail_in(index, number, sha256))

    def labels(self, most: int) -> Future[LabelCounts]:
        """Return the most frequent labels and how many items have each."""
        return self._read(lambda index: index.labels.counts(most))

    def item(self, number: int) -> Future[Item]:
        """Return an item. Refusal for unknown ids."""
        return self._read(lambda index: index_requests.item_in(index, number))

    def items(self, asked: Asked, after: int = -1) -> Future[Page]:
        """Return up to k items with ids above `after`, ascending, that pass the filters."""
        self.check(asked)
        return self._read(lambda index: index_requests.page_of(index, asked, after))

    def remove(self, number: int) -> Future[Item]:
        """Remove an item and return it. Refusal for unknown ids, or while it may only be read."""
        return self._keeper.ask(
            lambda pair: _begun(self._writer, index_requests.remove_from, _writable(pair), number)
        )

    def add(self, image: bytes, label: str | None, uri: str | None) -> Future[Enrolled]:
        """Hash an image and add it; on the disk when the future is done.

        An item is the one of its URI, else of its content. Raises UsageError for a URI that is
        none: a path of this machine would be opened by other commands. Refusal while the index may
        only be read.
        """
        self.check_new(label, uri)

        def ask(pair: ModelPair) -> Future[Enrolled]:
            index = _writable(pair)

            def add(hashed: HashedUpload) -> Future[Enrolled]:
                return _begun(self._writer, index_requests.add_to, index, image, label, uri, hashed)

            return chain(self._hash(pair, image), add)

        return self._keeper.ask(ask)

    def check_new(self, label: str | None, uri: str | None) -> None:
        """Raise UsageError for an item that cannot be added, Refusal if there is no index."""
        _ = self.index
        index_requests.check_text("label", label)
        index_requests.check_text("uri", uri)
        if uri is not None and (not _URI.fullmatch(uri) or uri.lower().startswith("file:")):
            raise UsageError(
                f"uri {shown(uri)}: expected one such as camera://yard/2026-01-31T12:00:00Z"
            )


def _begun(
    pool: ThreadPoolExecutor, work: Callable[..., _Result], *arguments: Any
) -> Future[_Result]:
    try:
        return pool.submit(work, *arguments)
    except RuntimeError as error:  # closed, or the process is ending
        raise EngineError(_ENDING) from error


def _index(pair: ModelPair) -> Index:
    if pair.index is None:
        raise Refusal(404, "no_index", "the service has no index; start it with --index")
    return pair.index


def _writable(pair: ModelPair) -> Index:
    """Return its index. Raises Refusal for the old one that was kept: additions would be lost."""
    if pair.kept_old:
        words = (
            "the index was replaced and the new one cannot be used yet; the old one is only read; "
            "the service's log says why"
        )
        raise Refusal(503, "old_index", words, {"retry-after": f"{RETRY_S:.0f}"})
    return _index(pair)


def _hashed(pair: ModelPair, found: Answered, decode: float) -> Future[HashedUpload]:
    latency = {"decode": decode, "queue": found.queued, "inference": found.inference}
    model = pair.hasher.manifest
    future: Future[HashedUpload] = Future()
    future.set_result(HashedUpload(found.outputs, model, latency, found.together))
    return future
