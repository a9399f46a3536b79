"""Bit-sliced bounds of distances: many queries against 512 codes at once.

A block of 512 codes is turned into planes: plane j holds bit j of all codes. A query differs from
the codes in plane j where the plane is not the query's bit. Four planes have 0 to 4 differences:
twice "at least two" and the parity are never more, and less only where all four differ. Of
random codes that loses one difference in 16, and one and a half planes are added instead of four.

- "At least two" is made once for a block, for all 16 choices of four query bits.
- The parity of differences is the parity of the planes, inverted or not. So parities are added for
  all queries at once: three of them have a carry, made for all 8 choices, and again a parity.

Each query picks its planes by table and adds them with carry-save adders into a bit-sliced number,
half the bound, which is compared bit by bit with the limit. Where it is below, codes are counted.

All vectors lie in memory as 8 words; code 8 r + l of the block is bit r of word l. The CPU adds as
many words at once as it has room for.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, register_jitable

from fgdeploy.retrieval.scan.simd import register_words

BLOCK = 512  # rows that are looked at together
HEAD_LIMIT = 16  # of `perhaps_closer`: up to there few codes that are no answers look like some
_HEAD_FOURS = 15
_HEAD_BITS = (HEAD_LIMIT // 2 - 1).bit_length()
_WORDS = 8  # of a vector in memory
_VECTOR_BYTES = 8 * _WORDS
_FOUR_BYTES, _CARRY_BYTES = 16 * _VECTOR_BYTES, 8 * _VECTOR_BYTES

_I8, _I16, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)


@register_jitable
def fours(words: int) -> int:
    """Return how many groups of four planes codes of `words` words have."""
    return 16 * words


def _carries(words: int) -> list[tuple[int, ...]]:
    """Return which two or three parities each carry comes from.

    Parity t below `fours` is that of four planes, the next ones are what the carries leave. The
    head's are added first.
    """
    queue, found = list(range(_HEAD_FOURS)), []
    for more in (range(_HEAD_FOURS, fours(words)), ()):
        while len(queue) > 1:
            found.append(tuple(queue[:3]))
            queue = [*queue[3:], fours(words) + len(found) - 1]
        queue += more
    return found


_HEAD_CARRIES = _HEAD_FOURS // 2


@register_jitable
def scratch_words(words: int) -> int:
    """Return the words of memory that `slice_block` writes: tables, parities, then the planes."""
    # Each carry takes two parities away; the last one has two to add.
    carries = fours(words) // 2
    tables = fours(words) * _FOUR_BYTES + carries * _CARRY_BYTES
    total: int = tables + (fours(words) + carries + 64 * words) * _VECTOR_BYTES
    return total // 8


def offsets(queries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Return where the tables hold each query's planes (Q, fours + carries), from (Q, W)."""
    count, words = queries.shape
    places = np.arange(64, dtype=np.uint64)
    bits = ((queries[:, :, None] >> places) & np.uint64(1)).astype(np.uint16).reshape(count, -1, 4)
    parities = list((bits.sum(axis=2) & 1).T)
    picks = list((bits @ np.array([1, 2, 4, 8], np.uint16)).T)
    for nodes in _carries(words):
        added = [parities[node] for node in nodes]
        picks.append(np.add.reduce([bit << n for n, bit in enumerate(added)], axis=0))
        parities.append(np.bitwise_xor.reduce(added, axis=0))
    return np.ascontiguousarray(np.stack(picks, axis=1).astype(np.uint16) * _VECTOR_BYTES)


def limits(words: int) -> npt.NDArray[np.int64]:
    """Return for each limit 0..64 W + 1 what half a bound is compared with; the lowest bit first.

    That is the greatest half below the limit, each bit inverted, as 0 or -1. Limit 0 has none: its
    row is void.
    """
    greatest = (np.arange(64 * words + 2)[:, None] - 1) // 2
    return -((~greatest >> np.arange(limit_bits(words))) & 1).astype(np.int64)


def limit_bits(words: int) -> int:
    """Return how many bits half a bound of codes of `words` words has."""
    return (32 * words).bit_length()


def _vector(lanes: int) -> Any:
    return ir.VectorType(_I64, lanes)


def _load(builder: Any, kind: Any, place: Any, align: int = 8) -> Any:
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, place: Any) -> None:
    builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=8)


def _add(builder: Any, place: Any, number: int) -> Any:
    return builder.add(place, ir.Constant(_I64, number)) if number else place


def _full_adder(builder: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """Return the sum and the carry of three bits: their parity and their majority."""
    if a.type.count == 8 and register_words() == 8:
        return _ternary(builder, a, b, c, 0x96), _ternary(builder, a, b, c, 0xE8)
    differ = builder.xor(a, b)
    # c where a and b differ, else a; in the form that LLVM makes Arm's bit selection of.
    carry = builder.xor(a, builder.and_(differ, builder.xor(a, c)))
    return builder.xor(differ, c), carry


def _ternary(builder: Any, a: Any, b: Any, c: Any, answers: int) -> Any:
    """Return any function of three bits, one instruction of AVX-512 that LLVM does not find."""
    kind = ir.FunctionType(a.type, [a.type] * 3 + [ir.IntType(32)])
    name = "llvm.x86.avx512.pternlog.q.512"
    called = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(called, [a, b, c, ir.Constant(ir.IntType(32), answers)])


def _part_bytes() -> int:
    """Return the bytes of a vector register: vectors are worked on in parts of so many."""
    return 8 * register_words()


def _parts() -> range:
    """Return where the parts of a vector in memory begin."""
    return range(0, _VECTOR_BYTES, _part_bytes())


@contextlib.contextmanager
def _each(builder: Any, end: int, step: int) -> Iterator[Any]:
    """Loop over 0, step, .. below end."""
    bounds = [ir.Constant(_I64, number) for number in (0, end, step)]
    with cgutils.for_range_slice(builder, *bounds, _I64) as (place, _):
        yield place


def _load_vectors(builder: Any, at: Any, stride: int, numbers: Iterable[int]) -> list[Any]:
    kind = _vector(register_words())
    return [_load(builder, kind, _add(builder, at, stride * number)) for number in numbers]


def _transpose_8(builder: Any, at: Any, to: Any, stride: int, shifts: tuple[int, int, int]) -> None:
    """Swap blocks of bits between 8 vectors: three of the six steps of 64 x 64 bits."""
    vectors = _load_vectors(builder, at, stride, range(8))
    kind = vectors[0].type
    for apart, shift in zip((4, 2, 1), shifts, strict=True):
        low = sum(1 << bit for bit in range(64) if not bit & shift)
        mask = ir.Constant(kind, [low] * kind.count)
        by = ir.Constant(kind, [shift] * kind.count)
        for first in (index for index in range(8) if not index & apart):
            above, under = vectors[first], vectors[first + apart]
            swap = builder.and_(builder.xor(builder.lshr(above, by), under), mask)
            vectors[first] = builder.xor(above, builder.shl(swap, by))
            vectors[first + apart] = builder.xor(under, swap)
    for number, vector in enumerate(vectors):
        _store(builder, vector, _add(builder, to, stride * number))


@intrinsic
def slice_block(typing: Any, place: Any, apart: Any, table: Any, shape: Any) -> Any:
    """Make the tables of 512 codes; `table` has room for `scratch_words`.

    shape: a tuple of W zeros, for codes of W words. Word w of row i lies at place + w * apart +
    8 * i. Vector 16 t + p tells whether at least two of planes 4 t to 4 t + 3 are set, each
    inverted where bit 0 to 3 of p is set; behind them, vector 8 c + p is a carry of parities.
    """
    words, carries = len(shape), _carries(len(shape))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, apart, table, _ = arguments
        table_of_carries = _add(builder, table, fours(words) * _FOUR_BYTES)
        parities = _add(builder, table_of_carries, len(carries) * _CARRY_BYTES)
        planes = _add(builder, parities, (fours(words) + len(carries)) * _VECTOR_BYTES)
        for w in range(words):
            source = builder.add(place, builder.mul(apart, ir.Constant(_I64, w)))
            target = _add(builder, planes, 64 * w * _VECTOR_BYTES)
            # First the vectors i, i + 8, .., i + 56, then 8 i, 8 i + 1, .., 8 i + 7.
            with _each(builder, 8 * _VECTOR_BYTES, _part_bytes()) as i:
                at, to = builder.add(source, i), builder.add(target, i)
                _transpose_8(builder, at, to, 8 * _VECTOR_BYTES, (32, 16, 8))
            with _each(builder, 64 * _VECTOR_BYTES, 8 * _VECTOR_BYTES) as i:
                for part in _parts():
                    at = builder.add(_add(builder, target, part), i)
                    _transpose_8(builder, at, at, _VECTOR_BYTES, (4, 2, 1))
        with _each(builder, fours(words) * _VECTOR_BYTES, _VECTOR_BYTES) as i:
            for part in _parts():
                to, left = _add(builder, table, part), _add(builder, parities, part)
                _tabulate_four(builder, _add(builder, planes, part), to, left, i)
        for n, nodes in enumerate(carries):
            for part in _parts():
                to = _add(builder, table_of_carries, n * _CARRY_BYTES + part)
                left = _add(builder, parities, part)
                _tabulate_carry(builder, nodes, to, left, fours(words) + n)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, shape), generate


def _tabulate_four(builder: Any, planes: Any, table: Any, parities: Any, place: Any) -> None:
    """Write a group's table and the parity of its planes; place: of the parity."""
    at = builder.add(planes, builder.mul(place, ir.Constant(_I64, 4)))
    to = builder.add(table, builder.mul(place, ir.Constant(_I64, _FOUR_BYTES // _VECTOR_BYTES)))
    given = _load_vectors(builder, at, _VECTOR_BYTES, range(4))
    pairs = []
    for pair in (given[:2], given[2:]):
        choices = [_inverted(builder, pair, pattern) for pattern in range(4)]
        pairs.append([(builder.and_(*both), builder.or_(*both)) for both in choices])
    for pattern in range(16):
        (both, some), (also, any_) = pairs[0][pattern & 3], pairs[1][pattern >> 2]
        two = builder.or_(builder.or_(both, also), builder.and_(some, any_))
        _store(builder, two, _add(builder, to, pattern * _VECTOR_BYTES))
    parity = functools.reduce(builder.xor, given)
    _store(builder, parity, builder.add(parities, place))


def _tabulate_carry(
    builder: Any, nodes: tuple[int, ...], to: Any, parities: Any, left: int
) -> None:
    """Write the carries of two or three parities, and the parity that is left."""
    given = _load_vectors(builder, parities, _VECTOR_BYTES, nodes)
    if len(given) == 2:
        carries = [builder.and_(*_inverted(builder, given, pattern)) for pattern in range(4)]
    else:
        half = [_majority(builder, *_inverted(builder, given, pattern)) for pattern in range(4)]
        carries = half + [builder.not_(carry) for carry in reversed(half)]
    for pattern, carry in enumerate(carries):
        _store(builder, carry, _add(builder, to, pattern * _VECTOR_BYTES))
    parity = functools.reduce(builder.xor, given)
    _store(builder, parity, _add(builder, parities, left * _VECTOR_BYTES))


def _inverted(builder: Any, vectors: list[Any], pattern: int) -> list[Any]:
    """Invert the vectors whose bit in `pattern` is set."""
    return [builder.not_(v) if pattern >> n & 1 else v for n, v in enumerate(vectors)]


@intrinsic
def spread(typing: Any, bitmap: Any, to: Any) -> Any:
    """Write 512 bits, row i at bit i, to address `to` in the order of a plane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bitmap, to = arguments
        kind = ir.VectorType(_I8, BLOCK // 8)
        rows = _load(builder, kind, bitmap)
        for word in range(_WORDS):
            bit = ir.Constant(kind, [1 << word] * kind.count)
            here = builder.icmp_unsigned("==", builder.and_(rows, bit), bit)
            _store(builder, builder.bitcast(here, _I64), _add(builder, to, 8 * word))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _count(builder: Any, planes: Iterable[Any], kind: Any, bits: int) -> list[Any]:
    """Add planes of bits; return `bits` slices of the total, and whether it has further bits."""
    waiting: list[list[Any]] = [[] for _ in range(bits + 1)]

    def settle(most: int) -> None:
        for weight, held in enumerate(waiting[:-1]):
            while len(held) > most:
                if len(held) == 2:
                    total, carry = builder.xor(*held), builder.and_(*held)
                else:
                    total, carry = _full_adder(builder, *held[:3])
                held[:] = [*held[3:], total]
                waiting[weight + 1].append(carry)

    for plane in planes:
        waiting[0].append(plane)
        settle(2)
    settle(1)
    none = ir.Constant(kind, [0] * kind.count)
    more = functools.reduce(builder.or_, waiting[-1], none)
    return [held[0] if held else none for held in waiting[:-1]] + [more]


@intrinsic
def any_closer(typing: Any, table: Any, offsets: Any, limit: Any, admitted: Any, shape: Any) -> Any:
    """Return whether one of 512 codes may have a distance below the limit: 0 if none has.

    Addresses: `table` of `slice_block`, a query's `offsets`, the row of `limits`, and 512 bits, in
    the order of a plane, that say which codes count. shape: as in `slice_block`.
    """
    words = len(shape)
    picked = [*range(fours(words) + len(_carries(words)))]
    generate = functools.partial(_any_closer, picked, fours(words), limit_bits(words))
    return types.int64(types.int64, types.int64, types.int64, types.int64, shape), generate


@intrinsic
def perhaps_closer(typing: Any, table: Any, offsets: Any, limit: Any, admitted: Any) -> Any:
    """Do what `any_closer` does for one word, but look at the first 60 bits only.

    The limit is at most HEAD_LIMIT. What more bits would add cannot bring a code below it.
    """
    picked = [*range(_HEAD_FOURS), *range(fours(1), fours(1) + _HEAD_CARRIES)]
    generate = functools.partial(_any_closer, picked, fours(1), _HEAD_BITS)
    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


def _any_closer(
    picked: list[int], groups: int, bits: int,
    context: Any, builder: Any, signature: Any, arguments: list[Any],
) -> Any:  # fmt: skip
    """Compare what the picked planes add up to with the limit, counting `bits` bits."""
    table, offsets, limit, admitted = arguments[:4]
    lanes = register_words()
    kind, found = _vector(lanes), ir.Constant(_I64, 0)
    none = ir.Constant(kind, [0] * lanes)

    def plane(number: int, part: int) -> Any:
        carries = max(number - groups, 0)
        begin = (number - carries) * _FOUR_BYTES + carries * _CARRY_BYTES + part
        pick = builder.zext(_load(builder, _I16, _add(builder, offsets, 2 * number), 2), _I64)
        return _load(builder, kind, _add(builder, builder.add(table, pick), begin))

    for part in _parts():
        planes = (plane(number, part) for number in picked)
        *total, beyond = _count(builder, planes, kind, bits)
        greater: Any = none
        for n, slice_ in enumerate(total):
            bit = _splat(builder, kind, _load(builder, _I64, _add(builder, limit, 8 * n)))
            greater = _majority(builder, slice_, bit, greater)
        beyond = builder.or_(greater, beyond)
        near = builder.and_(
            builder.not_(beyond), _load(builder, kind, _add(builder, admitted, part))
        )
        some = builder.bitcast(builder.icmp_unsigned("!=", near, none), ir.IntType(lanes))
        found = builder.or_(found, builder.zext(some, _I64))
    return found


def _majority(builder: Any, a: Any, b: Any, c: Any) -> Any:
    if a.type.count == 8 and register_words() == 8:
        return _ternary(builder, a, b, c, 0xE8)
    return builder.or_(builder.and_(a, b), builder.and_(c, builder.or_(a, b)))


def _splat(builder: Any, kind: Any, value: Any) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, nothing, zeros)
