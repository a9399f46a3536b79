"""What a query needs of a gallery: one index, several as one, or one on a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval import Hit, Item
from fgdeploy.retrieval.store.rerank import Hashes
from fgdeploy.retrieval.store.reranking import EmbeddingRows
from fgdeploy.retrieval.store.where import Params


class Searchable(Protocol):
    """A gallery that answers as `fgdeploy.retrieval.Index` does, in the same order.

    Its methods are those of `Index`, whose docstrings say what they promise; whatever one cannot
    give it refuses with UsageError.
    """

    @property
    def name(self) -> str:
        """What messages call it: its path or its address, without a password."""

    @property
    def bits(self) -> int:
        """The bits of a code."""

    @property
    def fingerprint(self) -> str:
        """The model of its codes."""

    @property
    def bundle(self) -> Path | None:
        """Where the bundle that built it lay then, None if nobody said."""

    def __enter__(self) -> Searchable: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def close(self) -> None:
        """Close what it holds open."""

    def __len__(self) -> int: ...

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model may be compared with its own."""

    def search(
        self,
        codes: UInt8Array,
        k: int = 10,
        *,
        where: str | None = None,
        params: Params = (),
        hashes: Hashes | None = None,
        embeddings: EmbeddingRows | None = None,
        pool: int | None = None,
        threads: int | None = None,
    ) -> list[list[Hit]]:
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id)."""

    def search_radius(
        self,
        code: UInt8Array,
        radius: int,
        *,
        where: str | None = None,
        params: Params = (),
        threads: int | None = None,
    ) -> list[Hit]:
        """Return all items within `radius` bits of one code (bytes,), by (distance, id)."""

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Return items in the order of `ids`. Raises IndexStoreError that names unknown ids."""

    def by_path(self, paths: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items that have these paths, by path."""

    def ids_of_content(self, digest: str) -> list[int]:
        """Return the ids of all items whose photos have this sha256, ascending."""

    def has_label(self, label: str) -> bool:
        """Return whether some item has this label."""
