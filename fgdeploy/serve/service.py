"""What the service does, whatever brings the requests: hash, search, enrol, remove."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Manifest
from fgdeploy.core import machine
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import EngineError, IndexStoreError, UsageError
from fgdeploy.core.text import is_utf8, shown
from fgdeploy.engines import Outputs
from fgdeploy.gallery import Query, code_queries
from fgdeploy.hasher import Hasher
from fgdeploy.live.hash_worker import Answered, HashWorker
from fgdeploy.live.pair_opener import RETRY_S, Load
from fgdeploy.photos import Decoders, DecodersClosed, thumbnail
from fgdeploy.retrieval import Hit, Index, Item
from fgdeploy.serve.chained import chain
from fgdeploy.serve.model_pair import ModelPair, PairKeeper
from fgdeploy.serve.refusals import Refusal
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.uploads import check_pixels

MOST_ANSWERS = 1000
TEXT = 2000  # characters of a label, a URI or an expression
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_READERS = 4
_ENDING = "the service is ending; send it again later"

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class HashedUpload:
    """An image's outputs, each of one row, and the manifest of the model that gave them.

    latency: seconds by stage; together: frames in its batch.
    """

    outputs: Outputs
    model: Manifest
    latency: dict[str, float]
    together: int

    @property
    def code(self) -> bytes:
        """The packed code."""
        return bytes(self.outputs.code[0])


@dataclass(frozen=True)
class Asked:
    """What is searched for: the k nearest, within `radius` bits where given, of those that pass.

    label: their label; where: an SQL expression that holds for them.
    """

    k: int = 10
    radius: int | None = None
    label: str | None = None
    where: str | None = None


@dataclass(frozen=True)
class Nearest:
    """A search's answer. hashed: of the image that was asked with. took: seconds of the search.

    complete: whether these are all within the radius; None without one.
    """

    code: bytes
    hits: list[Hit]
    complete: bool | None
    took: float
    hashed: HashedUpload | None = None


@dataclass(frozen=True)
class Enrolled:
    """What became of an image: `new`, `changed` or `known`, and its item."""

    status: str
    item: Item
    hashed: HashedUpload


class Service(Closing):
    """A hasher and perhaps an index, for any number of threads; it closes both.

    Each call returns a future at once. One thread runs the engine, one writes to the index, some
    decode and some search. What needs an index raises Refusal without one. load: opens the bundle
    of the index that lies there after a migration, with which it goes on then (`model_pair`).
    """

    def __init__(
        self,
        hasher: Hasher,
        index: Index | None = None,
        settings: ServeSettings | None = None,
        load: Load | None = None,
    ) -> None:
        self.settings = settings or ServeSettings()
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

        try:
            decoded = self._decoders.submit(lambda source: frame(), image)
        except DecodersClosed as error:
            raise EngineError(_ENDING) from error
        return chain(decoded, run)

    def search(self, image: bytes, asked: Asked) -> Future[Nearest]:
        """Hash an image and search for it; raises and fails as `hash` and `Index.search` do."""
        self.check(asked)

        def ask(pair: ModelPair) -> Future[Nearest]:
            def find(hashed: HashedUpload) -> Future[Nearest]:
                query = Query("upload", hashed.code)
                return _begun(self._readers, _search, _index(pair), query, asked, hashed)

            return chain(self._hash(pair, image), find)

        return self._keeper.ask(ask)

    def search_code(self, code: str, asked: Asked) -> Future[Nearest]:
        """Search for a code in hex digits."""
        self.check(asked)

        def find(index: Index) -> Nearest:
            (query,) = code_queries(index, [code])
            return _search(index, query, asked, None)

        return self._read(find)

    def search_item(self, number: int, asked: Asked) -> Future[Nearest]:
        """Search for what is like an item, which is no answer itself. Refusal for unknown ids."""
        self.check(asked)

        def find(index: Index) -> Nearest:
            query = Query("item", _item(index, number).code, item=number)
            return _search(index, query, asked, None)

        return self._read(find)

    def _read(self, work: Callable[[Index], _Result]) -> Future[_Result]:
        return self._keeper.ask(lambda pair: _begun(self._readers, work, _index(pair)))

    def check(self, asked: Asked) -> None:
        """Raise UsageError or Refusal for a search that is not allowed, or without an index."""
        _ = self.index
        _check_text("label", asked.label)
        _check_text("where", asked.where)
        if asked.where is not None and not self.settings.filters:
            words = "SQL expressions are off here; use label, or start the service --allow-where"
            raise Refusal(403, "where", words)

    def item(self, number: int) -> Future[Item]:
        """Return an item. Refusal for unknown ids."""
        return self._read(lambda index: _item(index, number))

    def items(self, asked: Asked, after: int = -1) -> Future[list[Item]]:
        """Return up to k items with ids above `after`, ascending, that pass the filters."""
        self.check(asked)
        return self._read(lambda index: _page(index, asked, after))

    def remove(self, number: int) -> Future[Item]:
        """Remove an item and return it. Refusal for unknown ids, or while it may only be read."""
        return self._keeper.ask(lambda pair: _begun(self._writer, _remove, _writable(pair), number))

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
                return _begun(self._writer, _add, index, image, label, uri, hashed)

            return chain(self._hash(pair, image), add)

        return self._keeper.ask(ask)

    def check_new(self, label: str | None, uri: str | None) -> None:
        """Raise UsageError for an item that cannot be added, Refusal if there is no index."""
        _ = self.index
        _check_text("label", label)
        _check_text("uri", uri)
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


def _check_text(what: str, text: str | None) -> None:
    if text is not None and not (0 < len(text) <= TEXT and is_utf8(text) and "\0" not in text):
        raise UsageError(
            f"{what}: expected 1 to {TEXT:,} characters without NUL, got {shown(repr(text))}"
        )


def _item(index: Index, number: int) -> Item:
    found = index.by_id([number]).get(number)
    if found is None:
        raise Refusal(404, "unknown_id", f"there is no item {number}")
    return found


def _remove(index: Index, number: int) -> Item:
    found = _item(index, number)
    try:
        index.remove([number])
    except IndexStoreError:
        _item(index, number)  # another process was faster
        raise
    return found


def _filter(asked: Asked) -> tuple[str | None, tuple[str, ...]]:
    """Return the filters as one expression and its values."""
    if asked.label is None:
        return asked.where, ()
    rest = "" if asked.where is None else f" AND ({asked.where}\n)"
    return f"label = ?{rest}", (asked.label,)


def _search(index: Index, query: Query, asked: Asked, hashed: HashedUpload | None) -> Nearest:
    start = time.monotonic()
    where, params = _filter(asked)
    more = len(query.left_out)
    code = np.frombuffer(query.code, np.uint8)[None]
    (found,) = index.search(code, asked.k + more, where=where, params=params)
    kept = [hit for hit in found if query.is_answer(hit)][: asked.k]
    complete = None
    if asked.radius is not None:
        near = [hit for hit in kept if hit.distance <= asked.radius]
        complete, kept = len(near) < asked.k, near
    return Nearest(query.code, kept, complete, time.monotonic() - start, hashed)


def _page(index: Index, asked: Asked, after: int) -> list[Item]:
    where, params = _filter(asked)
    source = index.items(where, params, after=after)
    return [item for item, _ in zip(source, range(asked.k), strict=False)]


def _add(
    index: Index, image: bytes, label: str | None, uri: str | None, hashed: HashedUpload
) -> Enrolled:
    digest = hashlib.sha256(image).hexdigest()
    item = Item(uri, hashed.code, label, digest)
    keeps = index.embeddings.form is not None
    jpegs = [thumbnail(image)] if index.thumbnails.kept else None
    added = index.add(
        [item], embeddings=hashed.outputs.embedding if keeps else None, thumbnails=jpegs
    )
    there = index.by_path([uri]).get(uri) if uri is not None else None
    there = there or index.by_content([digest]).get(digest)
    if there is None:
        raise IndexStoreError(f"{index.path}: the item was removed as soon as it was added")
    if added.copies and label is not None and there.label != label:
        raise Refusal(
            409,
            "other_label",
            f"this image is item {there.id} with label {shown(there.label)}; remove that one first",
        )
    status = "new" if added.new else "changed" if added.changed else "known"
    return Enrolled(status, there, hashed)
