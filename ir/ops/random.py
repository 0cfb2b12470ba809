"""Counter-based random bits: Philox4x32-10.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The state is i64[2] = (seed, counter), both read as 64 unsigned bits. Every element is a function of the
state and its own position, so neither threads nor devices change the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attrs import Attr
from ..dtypes import from_numpy, i64
from ..errors import ShapeError
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, Type
from ._common import Array, check_extents, ints, tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox4x32(counter: Sequence[Array], key: Sequence[int]) -> tuple[Array, ...]:
    """Ten rounds of Philox on many counters at once.

    Args:
        counter: four u64 arrays of one shape that hold 32-bit words.
        key: two 32-bit words.

    Returns:
        Four u64 arrays of random 32-bit words.
    """
    c0, c1, c2, c3 = counter
    for r in range(_ROUNDS):
        k0, k1 = ((k + r * w) & 0xFFFFFFFF for k, w in zip(key, _WEYL, strict=True))
        p0, p1 = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
        c0, c2 = (p1 >> _WORD) ^ c1 ^ np.uint64(k0), (p0 >> _WORD) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & _LOW, p0 & _LOW
    return c0, c1, c2, c3


def _state(op: str, t: Type) -> TensorType:
    state = tensor(op, t)
    if state != TensorType(i64, (2,)):
        raise ShapeError(f"{op} needs a state of type i64[2] (seed, counter), got {state}")
    return state


def _infer_random_bits(attrs: Any, state: Type) -> Type:
    _state("random_bits", state)
    return TensorType(from_numpy(np.uint32), check_extents("random_bits", attrs.shape))


def _random_bits(attrs: Any, t: TensorType, state: Array) -> Array:
    shape = ints(t.shape)
    count = int(np.prod(shape, dtype=np.int64))
    seed, first = (int(v) & 0xFFFFFFFFFFFFFFFF for v in state)
    block = np.arange((count + 3) // 4, dtype=np.uint64) + np.uint64(first)
    none = np.zeros_like(block)
    words = philox4x32((block & _LOW, block >> _WORD, none, none), (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(words, axis=-1).reshape(-1)[:count].astype(np.uint32).reshape(shape)


def _infer_random_advance(attrs: Any, state: Type) -> Type:
    check_extents("random_advance", (attrs.count,))
    return _state("random_advance", state)


def _random_advance(attrs: Any, t: TensorType, state: Array) -> Array:
    return state + np.array([0, (attrs.count + 3) // 4], np.int64)


_SEEDS = ((0.0, 1e9),)

register(
    OpDef(
        "random_bits",
        1,
        _infer_random_bits,
        _random_bits,
        Kind.OPAQUE,
        (Attr("shape", "dims"),),
        family="random",
        exact=True,
        doc="Uniform random u32: element i (row-major) is word i % 4 of Philox4x32-10 with the seed as key (low "
        "word first) and (counter + i // 4, 0) as its 128-bit counter.",
        samples=tuple(
            Sample((("i64", (2,)),), {"shape": shape}, grad=False, ranges=_SEEDS)
            for shape in ((), (1,), (7,), (3, 5), (2, 3, 4), (0, 3))
        ),
        bad=(
            Sample((("i32", (2,)),), {"shape": (3,)}),
            Sample((("i64", (3,)),), {"shape": (3,)}),
            Sample((("i64", (2,)),), {"shape": (-3,)}),
        ),
    )
)

register(
    OpDef(
        "random_advance",
        1,
        _infer_random_advance,
        _random_advance,
        Kind.OPAQUE,
        (Attr("count", "dim"),),
        family="random",
        exact=True,
        doc="The state after `count` elements were drawn: the counter moves by ceil(count / 4) blocks.",
        samples=tuple(
            Sample((("i64", (2,)),), {"count": count}, grad=False, ranges=_SEEDS) for count in (0, 1, 4, 17)
        ),
        bad=(
            Sample((("f64", (2,)),), {"count": 3}),
            Sample((("i64", ()),), {"count": 3}),
            Sample((("i64", (2,)),), {"count": -1}),
        ),
    )
)
