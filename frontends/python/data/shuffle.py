"""Random numbers on the host, from the same counter-based streams as the tensors' (`tm.randperm` gives these
permutations too): shuffling a data set compiles nothing and repeats with the seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....ir.ops.random import philox4x32
from ..random import Generator, default_generator
from ..tensor import from_array

Array = np.ndarray[Any, Any]
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


def words(count: int, generator: Generator | None) -> Array:
    """The next `count` random 32-bit words, as uint64; the generator moves on."""
    g = default_generator if generator is None else generator
    seed, first = (int(x) for x in g._state._array("shuffle"))
    blocks = math.ceil(count / 4)
    block = np.arange(blocks, dtype=np.uint64) + np.uint64(first & 0xFFFFFFFFFFFFFFFF)
    none = np.zeros_like(block)
    key = seed & 0xFFFFFFFFFFFFFFFF
    drawn = philox4x32((block & _LOW, block >> _WORD, none, none), (key & 0xFFFFFFFF, key >> 32))
    g._state.copy_(from_array(np.array([seed, first + blocks], np.int64)))
    return np.stack(drawn, axis=-1).reshape(-1)[:count]


def permutation(n: int, generator: Generator | None) -> Array:
    """A random permutation of 0 … n − 1, the one that `tm.randperm` gives."""
    pairs = words(2 * n, generator).reshape(n, 2)
    return np.argsort((pairs[:, 0] >> np.uint64(1) << _WORD) | pairs[:, 1], kind="stable")


def uniform(n: int, generator: Generator | None) -> Array:
    """Uniform float64 numbers in [0, 1)."""
    pairs = words(2 * n, generator).reshape(n, 2)
    return ((pairs[:, 0] >> np.uint64(5)) * 67108864.0 + (pairs[:, 1] >> np.uint64(6))) * 2.0**-53


def integers(high: int, n: int, generator: Generator | None) -> Array:
    """Uniform integers in [0, high)."""
    return np.minimum((uniform(n, generator) * high).astype(np.int64), high - 1)
