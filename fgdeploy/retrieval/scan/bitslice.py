"""Bit-sliced distances: many queries against 512 codes at once, a bit of each code in one vector.

A block of 512 codes is turned into planes: plane j holds bit j of all codes. A query differs from
the codes in plane j where the plane is not the query's bit. To count these differences, three
planes go into a full adder (sum and carry), whose 8 answers, one for each choice of three query
bits, are made once for a block and serve all queries. Each query picks its answers by table and
adds them with carry-save adders into a bit-sliced number, which is compared bit by bit with the
limit. That is about two instructions for each three bits of 512 codes.

All vectors lie in memory as 8 words; code 8 r + l of the block is bit r of word l. The CPU adds as
many words at once as it has room for.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_jitable

BLOCK = 512  # rows that are looked at together
HEAD_LIMIT = 15  # of `perhaps_closer`: up to there few codes that are no answers look like some
_HEAD_TRIPLES = 18
_WORDS = 8  # of a vector in memory
_VECTOR_BYTES = 8 * _WORDS
_ENTRY_BYTES = 2 * _VECTOR_BYTES  # sum and carry
_TRIPLE_BYTES = 8 * _ENTRY_BYTES

_I8, _I16, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(64)


def _lanes() -> int:
    """Return how many words the CPU that numba compiles for holds in one vector register."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 8 if "+avx512f" in features else 4 if "+avx2" in features else 2


def triples(words: int) -> int:
    """Return how many groups of three planes codes of `words` words have."""
    return -(-64 * words // 3)


@register_jitable
def scratch_words(words: int) -> int:
    """Return the words of memory that `slice_block` writes: the table, then the planes."""
    return -(-64 * words // 3) * (_TRIPLE_BYTES + 3 * _VECTOR_BYTES) // 8


def offsets(queries: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Return where the table holds each query's answers (Q, triples), from queries (Q, W)."""
    count, words = queries.shape
    bits = np.zeros((count, 3 * triples(words)), np.uint16)
    places = np.arange(64, dtype=np.uint64)
    bits[:, : 64 * words] = ((queries[:, :, None] >> places) & np.uint64(1)).reshape(count, -1)
    return (bits.reshape(count, -1, 3) @ np.array([1, 2, 4], np.uint16)) * np.uint16(_ENTRY_BYTES)


def limits(words: int) -> npt.NDArray[np.int64]:
    """Return for each limit 0..64 W + 1 its bits, the lowest first, as 0 or -1."""
    numbers = np.arange(64 * words + 2)[:, None]
    return -((numbers >> np.arange(limit_bits(words))) & 1).astype(np.int64)


def limit_bits(words: int) -> int:
    """Return how many bits a distance of codes of `words` words has."""
    return (64 * words).bit_length()


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
    if a.type.count == 8 and _lanes() == 8:
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


def _transpose(builder: Any, vectors: list[Any], shifts: tuple[int, int, int]) -> None:
    """Swap blocks of bits between 8 vectors, in place: three of the six steps of 64 x 64 bits."""
    kind = vectors[0].type
    for apart, shift in zip((4, 2, 1), shifts, strict=True):
        low = sum(1 << bit for bit in range(64) if not bit & shift)
        mask = ir.Constant(kind, [low] * kind.count)
        other = ir.Constant(kind, [low ^ (2**64 - 1)] * kind.count)
        by = ir.Constant(kind, [shift] * kind.count)
        for first in (index for index in range(8) if not index & apart):
            above, under = vectors[first], vectors[first + apart]
            vectors[first] = builder.or_(
                builder.and_(above, mask), builder.and_(builder.shl(under, by), other)
            )
            vectors[first + apart] = builder.or_(
                builder.and_(builder.lshr(above, by), mask), builder.and_(under, other)
            )


@intrinsic
def slice_block(typing: Any, place: Any, apart: Any, table: Any, shape: Any) -> Any:
    """Make the table of sums and carries of 512 codes; `table` has room for `scratch_words`.

    shape: a tuple of W zeros, for codes of W words. Word w of row i lies at place + w * apart +
    8 * i. Entry p of triple t, at table + (8 t + p) * 128, adds planes 3 t, 3 t + 1 and 3 t + 2,
    each inverted where bit 0, 1 or 2 of p is set.
    """
    words, kind = len(shape), _vector(_WORDS)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, apart, table, _ = arguments
        planes = _add(builder, table, triples(words) * _TRIPLE_BYTES)
        zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        for w in range(words):
            source = builder.add(place, builder.mul(apart, ir.Constant(_I64, w)))
            target = _add(builder, planes, 64 * w * _VECTOR_BYTES)
            # First the vectors i, i + 8, .., i + 56, then 8 i, 8 i + 1, .., 8 i + 7.
            for step, stride, shifts, begin in (
                (_VECTOR_BYTES, 8 * _VECTOR_BYTES, (32, 16, 8), source),
                (8 * _VECTOR_BYTES, _VECTOR_BYTES, (4, 2, 1), target),
            ):
                eight = ir.Constant(_I64, 8 * step)
                with cgutils.for_range_slice(
                    builder, zero, eight, ir.Constant(_I64, step), _I64
                ) as (i, _):
                    at, to = builder.add(begin, i), builder.add(target, i)
                    vectors = [
                        _load(builder, kind, _add(builder, at, stride * n)) for n in range(8)
                    ]
                    _transpose(builder, vectors, shifts)
                    for n, vector in enumerate(vectors):
                        _store(builder, vector, _add(builder, to, stride * n))
        for n in range(64 * words, 3 * triples(words)):
            _store(builder, ir.Constant(kind, [0] * _WORDS), _add(builder, planes, 64 * n))
        count = ir.Constant(_I64, triples(words))
        with cgutils.for_range_slice(builder, zero, count, one, _I64) as (t, _):
            _tabulate(builder, kind, planes, table, t)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, shape), generate


def _tabulate(builder: Any, kind: Any, planes: Any, table: Any, triple: Any) -> None:
    at = builder.add(planes, builder.mul(triple, ir.Constant(_I64, 3 * _VECTOR_BYTES)))
    to = builder.add(table, builder.mul(triple, ir.Constant(_I64, _TRIPLE_BYTES)))
    given = [_load(builder, kind, _add(builder, at, _VECTOR_BYTES * n)) for n in range(3)]
    for pattern in range(8):
        bits = [builder.not_(v) if pattern >> n & 1 else v for n, v in enumerate(given)]
        for n, value in enumerate(_full_adder(builder, *bits)):
            _store(builder, value, _add(builder, to, pattern * _ENTRY_BYTES + n * _VECTOR_BYTES))


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


def _count(builder: Any, table: Any, picks: list[Any], kind: Any, bits: int) -> list[Any]:
    """Add the sums and carries that `picks` point at; return `bits` slices of the total, and more.

    The last slice says where the total has further bits, which are not counted.
    """
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

    for triple, pick in enumerate(picks):
        entry = _add(builder, builder.add(table, pick), triple * _TRIPLE_BYTES)
        for weight in range(2):
            place = _add(builder, entry, weight * _VECTOR_BYTES)
            waiting[weight].append(_load(builder, kind, place))
        settle(2)
    settle(1)
    more = functools.reduce(builder.or_, waiting[-1], ir.Constant(kind, [0] * kind.count))
    return [held[0] for held in waiting[:-1]] + [more]


@intrinsic
def any_closer(typing: Any, table: Any, offsets: Any, limit: Any, admitted: Any, shape: Any) -> Any:
    """Return whether one of 512 codes has a distance below the limit: not 0 if so.

    Addresses: `table` of `slice_block`, a query's `offsets`, the row of `limits`, and 512 bits, in
    the order of a plane, that say which codes count. shape: as in `slice_block`.
    """
    words = len(shape)
    generate = functools.partial(_any_closer, triples(words), limit_bits(words))
    return types.int64(types.int64, types.int64, types.int64, types.int64, shape), generate


@intrinsic
def perhaps_closer(typing: Any, table: Any, offsets: Any, limit: Any, admitted: Any) -> Any:
    """Do what `any_closer` does for one word, but look at the first 54 bits only: 0 is certain.

    The limit is at most HEAD_LIMIT. What more bits would add cannot bring a code below it.
    """
    generate = functools.partial(_any_closer, _HEAD_TRIPLES, HEAD_LIMIT.bit_length())
    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


def _any_closer(
    groups: int, bits: int, context: Any, builder: Any, signature: Any, arguments: list[Any]
) -> Any:
    """Compare the distance in the first `groups` triples with the limit, counting `bits` bits."""
    table, offsets, limit, admitted = arguments[:4]
    lanes = _lanes()
    kind, found = _vector(lanes), ir.Constant(_I64, 0)
    none = ir.Constant(kind, [0] * lanes)
    for part in range(0, 8 * _WORDS, 8 * lanes):
        picks = [
            builder.zext(_load(builder, _I16, _add(builder, offsets, 2 * n), 2), _I64)
            for n in range(groups)
        ]
        *total, more = _count(builder, _add(builder, table, part), picks, kind, bits)
        less: Any = none
        for n, plane in enumerate(total):
            bit = _splat(builder, kind, _load(builder, _I64, _add(builder, limit, 8 * n)))
            _, less = _full_adder(builder, builder.not_(plane), bit, less)
        if 3 * groups >= 1 << bits:
            less = builder.and_(less, builder.not_(more))
        less = builder.and_(less, _load(builder, kind, _add(builder, admitted, part)))
        some = builder.bitcast(builder.icmp_unsigned("!=", less, none), ir.IntType(lanes))
        found = builder.or_(found, builder.zext(some, _I64))
    return found


def _splat(builder: Any, kind: Any, value: Any) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, nothing, zeros)
