"""Numba intrinsics of the Hamming kernel: popcounts of whole vectors, loads by address, one atomic.

The vectors are written out as LLVM's <8 x i64>, because its own vectoriser stops at 256 bits on
CPUs with AVX-512. LLVM cuts them to what the CPU has: zmm with vpopcntq, ymm, or NEON's cnt.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_LANES = 8
STEP = 8 * _LANES  # rows of `least_distance` come in multiples of this
_FAR = 3072  # bytes that codes are fetched ahead before they are laid out

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR, _HALVES = ir.VectorType(_I64, _LANES), ir.VectorType(_I32, 2 * _LANES)


def register_words() -> int:
    """Return how many 8-byte words a vector register holds on the CPU that numba compiles for."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return 8 if "+avx512f" in features else 4 if "+avx2" in features else 2


def _function(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, arguments), f"llvm.{name}"
    )


def _splat(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, _LANES), [0] * _LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)


@intrinsic
def popcount(typing: Any, word: Any) -> Any:
    """Return the number of set bits of a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Return the position of the lowest set bit of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """Return the 8 bytes at an address of any alignment as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _I64.as_pointer()), align=1)

    return types.uint64(types.int64), generate


@intrinsic
def store(typing: Any, address: Any, word: Any) -> Any:
    """Write a uint64 to an address that is a multiple of 8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@intrinsic
def load_byte(typing: Any, address: Any) -> Any:
    """Return the byte at an address as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()), align=1)
        return builder.zext(byte, _I64)

    return types.uint64(types.int64), generate


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which may be any number, for a later read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _prefetch(builder: Any, address: Any) -> None:
    place = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
    called = builder.module.declare_intrinsic("llvm.prefetch", (place.type,), kind)
    read, keep, data = (ir.Constant(_I32, number) for number in (0, 3, 1))
    builder.call(called, [place, read, keep, data])


@intrinsic
def take_ticket(typing: Any, counter: Any) -> Any:
    """Add 1 to counter[0], an int64 that threads share, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(_I64, 1), "monotonic")

    return types.int64(counter), generate


def _distances(builder: Any, words: int, place: Any, apart: Any, wanted: list[Any]) -> Any:
    """Return the distances of 8 codes: word w of the first one lies at place + w * apart."""
    total = None
    for w in range(words):
        at = builder.add(place, builder.mul(apart, ir.Constant(_I64, w))) if w else place
        codes = builder.load(builder.inttoptr(at, _VECTOR.as_pointer()), align=8)
        bits = _count_bits(builder, builder.xor(codes, wanted[w]))
        total = bits if total is None else builder.add(total, bits)
    return total


def _count_bits(builder: Any, words: Any) -> Any:
    """Return the number of set bits of each of 8 words."""
    if register_words() != 4:
        counted = _function(builder, "ctpop.v8i64", _VECTOR, [_VECTOR])
        return builder.call(counted, [words])
    # AVX2 counts by table, four bits at a time, and adds up what two vectors of bytes differ by:
    # 4 + the count of one half of a byte and 4 - that of the other spare the addition of both.
    quarter, octets = ir.VectorType(_I64, 4), ir.VectorType(ir.IntType(8), 32)
    pick = _function(builder, "x86.avx2.pshuf.b", octets, [octets, octets])
    differ = _function(builder, "x86.avx2.psad.bw", quarter, [octets, octets])
    counts = [number.bit_count() for number in range(16)] * 2
    above, under = ([4 + sign * count for count in counts] for sign in (1, -1))
    low = ir.Constant(quarter, [0x0F0F0F0F0F0F0F0F] * 4)
    four = ir.Constant(quarter, [4] * 4)
    halves = []
    for begin in (0, 4):
        half = _shuffle(builder, words, words, list(range(begin, begin + 4)))
        picked = [
            builder.call(pick, [ir.Constant(octets, table), builder.bitcast(index, octets)])
            for table, index in (
                (above, builder.and_(half, low)),
                (under, builder.and_(builder.lshr(half, four), low)),
            )
        ]
        halves.append(builder.call(differ, picked))
    return _shuffle(builder, halves[0], halves[1], list(range(8)))


def _query_words(builder: Any, words: int, query: Any) -> list[Any]:
    """Return each word of the query at address `query`, in all lanes of a vector."""
    places = [builder.add(query, ir.Constant(_I64, 8 * w)) for w in range(words)]
    return [
        _splat(builder, builder.load(builder.inttoptr(place, _I64.as_pointer()), align=8))
        for place in places
    ]


@intrinsic
def least_distance(typing: Any, place: Any, apart: Any, query: Any, rows: Any, shape: Any) -> Any:
    """Return the least Hamming distance of a query to `rows` codes, a multiple of STEP.

    shape: a tuple of W zeros, for codes of W words. Word w of row i lies at
    place + w * apart + 8 * i, word w of the query at query + 8 * w.
    """
    words = len(shape)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, apart, query, rows, _ = arguments
        wanted = _query_words(builder, words, query)
        # Distances are small: the minimum of 32-bit halves is cheaper, and AVX2 has no other.
        least = [cgutils.alloca_once(builder, _HALVES) for _ in range(register_words())]
        for held in least:
            builder.store(ir.Constant(_HALVES, [1 << 30, 0] * _LANES), held)
        step = ir.Constant(_I64, STEP)
        with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), rows, step, _I64) as (row, _):
            first = builder.add(place, builder.mul(row, ir.Constant(_I64, 8)))
            for number in range(STEP // _LANES):
                held = least[number % len(least)]
                at = builder.add(first, ir.Constant(_I64, 8 * _LANES * number))
                halves = builder.bitcast(_distances(builder, words, at, apart, wanted), _HALVES)
                so_far = builder.load(held)
                less = builder.icmp_signed("<", halves, so_far)
                builder.store(builder.select(less, halves, so_far), held)
        merged = builder.load(least[0])
        for held in least[1:]:
            other = builder.load(held)
            merged = builder.select(builder.icmp_signed("<", other, merged), other, merged)
        reduced = _function(builder, "vector.reduce.umin.v8i64", _I64, [_VECTOR])
        return builder.call(reduced, [builder.bitcast(merged, _VECTOR)])

    return types.int64(types.int64, types.int64, types.int64, types.int64, shape), generate


@intrinsic
def closer_than(typing: Any, limit: Any, place: Any, apart: Any, query: Any, shape: Any) -> Any:
    """Return which of 64 codes have a distance below `limit`: bit i of the uint64 is row i.

    Other arguments as in `least_distance`.
    """
    words = len(shape)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        limit, place, apart, query, _ = arguments
        wanted, most = _query_words(builder, words, query), _splat(builder, limit)
        mask = ir.Constant(_I64, 0)
        for number in range(64 // _LANES):
            at = builder.add(place, ir.Constant(_I64, 8 * _LANES * number))
            near = builder.icmp_unsigned("<", _distances(builder, words, at, apart, wanted), most)
            bits = builder.zext(builder.bitcast(near, ir.IntType(_LANES)), _I64)
            mask = builder.or_(mask, builder.shl(bits, ir.Constant(_I64, _LANES * number)))
        return mask

    signature = types.uint64(types.int64, types.int64, types.int64, types.int64, shape)
    return signature, generate


def _laid_out_widths(words: int) -> list[int]:
    """Return the bytes of a code, of `words` words, that `lay_out` knows how to lay out."""
    return list(range(1, 9)) if words == 1 else [8 * words - 4, 8 * words]


@intrinsic
def lay_out(
    typing: Any, place: Any, width: Any, groups: Any, to: Any, apart: Any, shape: Any
) -> Any:
    """Lay `groups` times 8 codes of `width` bytes out by word; returns how many rows were laid out.

    shape: a tuple of W zeros, for codes of W words. Word w of row i goes to to + w * apart + 8 * i,
    zeros behind a code's last byte. For each group 64 * W bytes are read, so more than it has where
    a code is no whole words. Returns 0 for widths that are rare.
    """
    words = len(shape)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, width, groups, to, apart, _ = arguments
        done = cgutils.alloca_once_value(builder, ir.Constant(_I64, 0))
        rows = builder.mul(groups, ir.Constant(_I64, _LANES))
        for known in _laid_out_widths(words):
            wanted = builder.icmp_signed("==", width, ir.Constant(_I64, known))
            with builder.if_then(wanted), cgutils.for_range(builder, groups, intp=_I64) as loop:
                source = builder.mul(loop.index, ir.Constant(_I64, _LANES * known))
                target = builder.mul(loop.index, ir.Constant(_I64, 8 * _LANES))
                here, there = builder.add(place, source), builder.add(to, target)
                for line in range(words):
                    _prefetch(builder, builder.add(here, ir.Constant(_I64, _FAR + 64 * line)))
                _lay_out_8(builder, known, words, here, there, apart)
                builder.store(rows, done)
        return builder.load(done)

    signature = types.int64(types.int64, types.int64, types.int64, types.int64, types.int64, shape)
    return signature, generate


def _lay_out_8(builder: Any, width: int, words: int, place: Any, to: Any, apart: Any) -> None:
    """Write the words of 8 codes, by shuffles of the largest pieces that a word is made of."""
    piece = math.gcd(width, 8)
    kind = ir.VectorType(ir.IntType(8 * piece), 64 // piece)
    sources = []
    for number in range(words):
        at = builder.add(place, ir.Constant(_I64, 64 * number))
        sources.append(builder.load(builder.inttoptr(at, kind.as_pointer()), align=1))
    for word, taken in enumerate(_by_word(builder, width // piece, piece, sources)):
        at = builder.add(to, builder.mul(apart, ir.Constant(_I64, word))) if word else to
        builder.store(taken, builder.inttoptr(at, kind.as_pointer()), align=8)


def _by_word(builder: Any, pieces: int, piece: int, sources: list[Any]) -> list[Any]:
    """Return each word of 8 codes as a vector, from vectors that hold the codes as they lie.

    pieces: how many of `piece` bytes a code has.
    """
    lanes = sources[0].type.count
    if piece == 8 and pieces % 2 == 0:  # even and odd words first, which saves shuffles
        halves = []
        for odd in (0, 1):
            mask = list(range(odd, 2 * lanes, 2))
            pairs = zip(sources[::2], sources[1::2], strict=True)
            part = [_shuffle(builder, one, other, mask) for one, other in pairs]
            halves.append(_by_word(builder, pieces // 2, piece, part))
        return [word for both in zip(*halves, strict=True) for word in both]
    found = []
    for word in range(len(sources)):
        # Which piece each lane takes; none where the code has ended.
        of_code = [8 // piece * word + lane % (8 // piece) for lane in range(lanes)]
        wanted = [
            lane * piece // 8 * pieces + each if each < pieces else None
            for lane, each in enumerate(of_code)
        ]
        taken = ir.Constant(sources[0].type, [0] * lanes)
        for number, source in enumerate(sources):
            mask = [
                lane if each is None or each // lanes != number else lanes + each % lanes
                for lane, each in enumerate(wanted)
            ]
            if mask != list(range(lanes)):
                taken = _shuffle(builder, taken, source, mask)
        found.append(taken)
    return found


def _shuffle(builder: Any, one: Any, other: Any, mask: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(mask)), mask))
