"""Several index folders searched as one: same answers, same order, each hit with its source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fgdeploy.core import numbers
from fgdeploy.core.closing import Closing
from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import shown
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.retrieval import Hit, Index, Item
from fgdeploy.retrieval.store.ids import known_ids
from fgdeploy.retrieval.store.rerank import Hashes
from fgdeploy.retrieval.store.reranking import EmbeddingRows, chosen
from fgdeploy.retrieval.store.together import nearest_together, within_together
from fgdeploy.retrieval.store.where import Params


class SeveralIndexes(Closing):
    """Indexes of one model as one `Searchable`; a context manager, usable from threads.

    members: the indexes, in the order in which they were named, each by its name. An id may be in
    several of them: then it is `Hit.source` and `Hit.id` that tell an item. A search sees one
    transaction of each. Nothing is left out: where one cannot answer, there is no answer.
    """

    def __init__(self, members: Sequence[Index]) -> None:
        """Raises UsageError for none or one named twice, IndexStoreError for unequal models."""
        if not members:
            raise UsageError("no index is named; name one, such as gallery.fgi")
        places = [os.path.realpath(member.path) for member in members]
        for number, place in enumerate(places):
            if (first := places.index(place)) != number:
                raise UsageError(_twice(members[first].name, members[number].name))
        self.members: Mapping[str, Index] = {member.name: member for member in members}
        self._first, *others = self._all = list(members)
        self.bits, self.fingerprint = self._first.bits, self._first.fingerprint
        for other in others:
            if (other.fingerprint, other.bits) != (self.fingerprint, self.bits):
                raise IndexStoreError(
                    f"{other.name} holds {other.bits}-bit codes of model {other.fingerprint[:12]}, "
                    f"{self._first.name} {self.bits}-bit codes of model {self.fingerprint[:12]}; "
                    "only indexes of one model are searched as one: leave one of them out"
                )

    @classmethod
    def open(cls, paths: Sequence[str | os.PathLike[str]]) -> SeveralIndexes:
        """Open the indexes at these paths. Raises IndexStoreError, which names the one it is about.

        Raises UsageError too, as `SeveralIndexes` does.
        """
        with ExitStack() as stack:
            opened = cls([stack.enter_context(Index.open(path)) for path in paths])
            stack.pop_all()
            return opened

    def close(self) -> None:
        """Close all indexes."""
        with ExitStack() as stack:
            for member in self._all:
                stack.callback(member.close)

    @property
    def name(self) -> str:
        """The names of all indexes."""
        return ", ".join(self.members)

    @property
    def bundle(self) -> Path | None:
        """Where a bundle lay that built one of them: the first that knows."""
        return next((member.bundle for member in self._all if member.bundle is not None), None)

    def __len__(self) -> int:
        return sum(map(len, self._all))

    def require(self, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model may be compared with its own."""
        self._first.require(fingerprint, bits)

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
        """Return the min(k, N) nearest items of each query code (Q, bytes), by (distance, id).

        Arguments and errors are those of `Index.search`, whose answers these are on one index of
        all items; of equal ids the one of the index named first stands first.
        """
        by = chosen(hashes, embeddings, pool)
        return nearest_together(
            self._all, codes, k, where=where, params=params, by=by, threads=threads
        )

    def search_radius(
        self,
        code: UInt8Array,
        radius: int,
        *,
        where: str | None = None,
        params: Params = (),
        threads: int | None = None,
    ) -> list[Hit]:
        """Return all items within `radius` bits of one code (bytes,), in the same order."""
        return within_together(self._all, code, radius, where=where, params=params, threads=threads)

    def get(self, ids: Sequence[int]) -> list[Item]:
        """Return items in the order of `ids`.

        Raises IndexStoreError that names unknown ids, and ids that two of the indexes have.
        """
        return [item for _, item in self._owned(known_ids(ids))]

    def source_of(self, number: int) -> str:
        """Return the name of the only index that has an id; errors as `get`."""
        return self._owned([number])[0][0]

    def _owned(self, wanted: Sequence[int]) -> list[tuple[str, Item]]:
        found: dict[int, tuple[str, Item]] = {}
        for name, member in self.members.items():
            for number, item in member.by_id(wanted).items():
                if number in found:
                    raise IndexStoreError(
                        f"item {number} is in {found[number][0]} and in {name}; "
                        f"say which is meant: {found[number][0]}:{number}"
                    )
                found[number] = name, item
        if unknown := [number for number in wanted if number not in found]:
            names = ", ".join(shown(number) for number in unknown[:5])
            raise IndexStoreError(
                f"none of {self.name} has item {names}; nothing was read; see: fgdeploy index list"
            )
        return [found[number] for number in wanted]

    def by_path(self, paths: Iterable[str], *, checked: bool = True) -> dict[str, Item]:
        """Return the items that have these paths, by path: of the index named first that has it."""
        wanted = list(paths)
        found: dict[str, Item] = {}
        for member in self._all:
            found = {**member.by_path(wanted, checked=checked), **found}
        return found

    def ids_of_content(self, digest: str) -> list[int]:
        """Return the ids of all items whose photos have this sha256, ascending, each once."""
        return sorted({number for one in self._all for number in one.ids_of_content(digest)})

    def has_label(self, label: str) -> bool:
        """Return whether some item has this label."""
        return any(member.has_label(label) for member in self._all)


def members_of(gallery: Searchable) -> Mapping[str | None, Searchable]:
    """Return the galleries that a gallery consists of, by what its hits say they are of."""
    several = gallery.members if isinstance(gallery, SeveralIndexes) else {}
    return dict(several.items()) or {None: gallery}


def place_of(gallery: Searchable, given: int | str) -> tuple[str | None, int]:
    """Return the source and id of the item that is meant: by its id, or in text ID or INDEX:ID.

    Raises UsageError for other texts, and as `SeveralIndexes.get` does where the index is not said.
    """
    name, _, digits = given.rpartition(":") if isinstance(given, str) else ("", "", "")
    number = numbers.whole(digits, "--id", 0) if isinstance(given, str) else known_ids([given])[0]
    if not name:
        return gallery.source_of(number) if isinstance(gallery, SeveralIndexes) else None, number
    for source in members_of(gallery):
        if name == (source or gallery.name):
            return source, number
    raise UsageError(
        f"--id {shown(given)}: {shown(name)} is not searched; it must be one of --index"
    )


def _twice(first: str, second: str) -> str:
    named = f"{first} is" if first == second else f"{first} and {second} are one folder, which is"
    return f"{named} named twice; every item would be found twice: name each index once"
