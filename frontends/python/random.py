"""Random numbers: counter-based (Philox), with the generator's (seed, counter) as graph state.

A generator's state is an int64 tensor of two elements that every draw reads and advances; a step that draws has it as
a donated input, so the same seed gives the same bits on any device and thread count.
"""

from __future__ import annotations

import math
import secrets
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import DType, boolean, f32, f64, i64, u32
from ...ir.errors import CaptureError, DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .creation import _element, _finish, _sizes
from .device import check
from .inplace import check_leaf, check_overlap
from .nodes import align, cast, expand
from .place import here
from .registry import FUNCTIONS, both, function, method
from .tensor import Tensor, from_array, write
from .trace import TRACE, assign, begin, node_of, number, record, wrap

_MASK = (1 << 63) - 1
GENERATORS: weakref.WeakSet[Generator] = weakref.WeakSet()  # all that exist; loop bodies carry their states


class Generator:
    """A stream of random numbers.

    Attributes of its state: the seed and the number of 128-bit blocks drawn so far.
    """

    def __init__(self, device: Any = "cpu") -> None:
        check(device)
        self.device = device
        self._seed = 0
        self._state = from_array(np.array([0, 0], np.int64))
        self._state._cell.role, self._state._cell.name = "state", "rng"
        self.manual_seed(67280421310721)
        GENERATORS.add(self)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of a seed."""
        self._seed = int(seed) & 0xFFFFFFFFFFFFFFFF
        self._set(self._seed - (1 << 64) if self._seed > _MASK else self._seed, 0)
        return self

    def seed(self) -> int:
        """Start the stream of a seed from the system's entropy, and return it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return self._seed

    def _set(self, seed: int, counter: int) -> None:
        if TRACE.barrier is not None:
            raise CaptureError(f"a generator is seeded while {TRACE.barrier}", location=here(3).location,
                               hint="seed it outside")
        cell = self._state._cell  # stays the same cell: captured functions read it at each call
        cell.buffer, cell.node, cell.stale = np.array([seed, counter], np.int64), None, False
        cell.version += 1

    def get_state(self) -> Tensor:
        """The state as bytes, for `set_state`."""
        return from_array(np.frombuffer(self._state._array("get_state()").tobytes(), np.uint8).copy())

    def set_state(self, state: Tensor) -> Generator:
        """Continue from a state that `get_state` gave."""
        raw = state._array("set_state()")
        if raw.dtype != np.uint8 or raw.size != 16:
            raise TypeError("expected a ByteTensor of 16 elements, as get_state() returns")
        seed, counter = (int(x) for x in np.frombuffer(raw.tobytes(), np.int64))
        self._seed = seed & 0xFFFFFFFFFFFFFFFF
        self._set(seed, counter)
        return self

    def clone_state(self) -> Generator:
        """A generator that goes on from here by itself."""
        other = Generator()
        other.set_state(self.get_state())
        return other


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


FUNCTIONS["manual_seed"], FUNCTIONS["Generator"] = manual_seed, Generator
FUNCTIONS["default_generator"] = default_generator
FUNCTIONS["seed"] = default_generator.seed
FUNCTIONS["initial_seed"] = default_generator.initial_seed
FUNCTIONS["get_rng_state"] = default_generator.get_state
FUNCTIONS["set_rng_state"] = default_generator.set_state


# --- draws ------------------------------------------------------------------------------------------------------------
def _bits(b: Builder, state: Node, shape: tuple[int, ...]) -> Node:
    return b.random_bits(state, shape=shape)


def _advance(b: Builder, state: Node, count: int) -> Node:
    return b.random_advance(state, count=count)


def draw(shape: tuple[int, ...], generator: Generator | None = None) -> Node:
    """Uniform uint32 bits; the generator moves on. (Call `begin` before.)"""
    g = generator if generator is not None else default_generator
    cell = g._state._cell
    state = node_of(g._state)
    count = 1
    for d in shape:
        count *= d
    bits: Node = record(_bits, (state,), (shape,), False)
    assign(cell, record(_advance, (state,), (count,), False), False)
    return bits


def draw_once(shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
    """Uniform uint32 bits as a tensor."""
    begin(())
    return wrap(draw(shape, generator), False)


def uniform_node(b: Builder, bits: Node, dtype: DType) -> Node:
    """Bits as uniform numbers in [0, 1): 24 bits for float32, 11 and 8 for the narrow ones, two words for float64."""
    if dtype is f64:
        low, high = _halves(b, bits)
        top = b.cast(b.shr(high, b.scalar(5, u32)), dtype=f64)
        bottom = b.cast(b.shr(low, b.scalar(6, u32)), dtype=f64)
        joined = b.add(b.mul(top, b.scalar(67108864.0, f64)), bottom)
        return b.mul(joined, b.scalar(2.0 ** -53, f64))
    kept = {"f32": 24, "f16": 11, "bf16": 8}[dtype.name]
    value = b.cast(b.shr(bits, b.scalar(32 - kept, u32)), dtype=f32)
    return cast(b, b.mul(value, b.scalar(2.0 ** -kept, f32)), dtype)


def _halves(b: Builder, bits: Node) -> tuple[Node, Node]:
    """The two halves along a last axis of 2."""
    rank = len(bits.shape)
    shape = bits.shape[:-1]
    parts = [b.reshape(b.slice(bits, start=(0,) * (rank - 1) + (i,), size=(*shape, 1), step=(1,) * rank), shape=shape)
             for i in (0, 1)]
    return parts[0], parts[1]


def _words(shape: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    return (*shape, 2) if dtype is f64 else shape


def normal_node(b: Builder, bits: Node, dtype: DType) -> Node:
    """Bits (two words each along a last axis) as standard normal numbers, by Box and Muller's transform."""
    wide = f64 if dtype is f64 else f32
    first, second = _halves(b, bits)
    scale, shift = (2.0 ** -24, 8)
    u = b.mul(b.add(b.cast(b.shr(first, b.scalar(shift, u32)), dtype=wide), b.scalar(0.5, wide)), b.scalar(scale, wide))
    v = b.mul(b.cast(b.shr(second, b.scalar(shift, u32)), dtype=wide), b.scalar(scale * 2 * math.pi, wide))
    radius = b.sqrt(b.mul(b.log(u), b.scalar(-2.0, wide)))
    return cast(b, b.mul(radius, b.cos(v)), dtype)


def _uniform(b: Builder, bits: Node, dtype: DType) -> Node:
    return uniform_node(b, bits, dtype)


def _sample(fn: Callable[..., Node], words: tuple[int, ...], args: tuple[Any, ...],
            generator: Generator | None) -> Node:
    bits = draw(words, generator)
    made: Node = record(fn, (bits,), args, False)
    return made


def _float_element(dtype: Any, name: str) -> DType:
    d = _element(dtype)
    if not d.is_float:
        raise DTypeError(f"\"{name}\" not implemented for '{d.long_name}'",
                         hint="ask for a floating dtype, or use randint")
    return d


@function("rand")
def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
         requires_grad: bool = False, layout: Any = None, pin_memory: bool = False, out: Any = None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    check(device)
    d, shape = _float_element(dtype, "uniform"), _sizes(size)
    begin(())
    return _finish(wrap(_sample(_uniform, _words(shape, d), (d,), generator), False), requires_grad)


@function("randn")
def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
          requires_grad: bool = False, layout: Any = None, pin_memory: bool = False, out: Any = None) -> Tensor:
    """Standard normal numbers."""
    check(device)
    d, shape = _float_element(dtype, "normal"), _sizes(size)
    begin(())
    return _finish(wrap(_sample(normal_node, (*shape, 2), (d,), generator), False), requires_grad)


def _integers(b: Builder, bits: Node, low: int, high: int, dtype: DType) -> Node:
    span = high - low
    if span > 1 << 32:
        words = [b.cast(w, dtype=i64) for w in _halves(b, bits)]
        wide = b.and_(b.or_(b.shl(words[0], b.scalar(32, i64)), words[1]), b.scalar(_MASK, i64))
        value = b.rem(wide, b.scalar(min(span, _MASK), i64))
    else:  # the high word of a 32 × 32 bit product: unbiased to 2⁻³²
        value = b.shr(b.mul(b.cast(bits, dtype=i64), b.scalar(span, i64)), b.scalar(32, i64)) if span <= 1 << 31 else \
            b.rem(b.cast(bits, dtype=i64), b.scalar(span, i64))
    return cast(b, b.add(value, b.scalar(low, i64)), dtype)


@function("randint")
def randint(*args: Any, low: Any = None, high: Any = None, size: Any = None, generator: Generator | None = None,
            dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None) -> Tensor:
    """Uniform integers from `low` (0 unless given) up to but without `high`."""
    check(device)
    given = list(args)
    if size is None:
        size = given.pop()
    if high is None:
        high = given.pop()
    if low is None:
        low = given.pop() if given else 0
    low, high = int(low), int(high)
    if high <= low:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    d = i64 if dtype is None else dtypes.resolve(dtype)
    shape = _sizes((size,))
    begin(())
    words = (*shape, 2) if high - low > 1 << 32 else shape
    return _finish(wrap(_sample(_integers, words, (low, high, d), generator), False), requires_grad)


def _permutation(b: Builder, bits: Node, dtype: DType) -> Node:
    first, second = (b.cast(w, dtype=i64) for w in _halves(b, bits))
    key = b.or_(b.shl(b.shr(first, b.scalar(1, i64)), b.scalar(32, i64)), second)
    return cast(b, b.results(b.sort(key, axis=0))[1], dtype)


@function("randperm")
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None,
             requires_grad: bool = False, layout: Any = None, pin_memory: bool = False) -> Tensor:
    """A random permutation of 0 … n − 1."""
    check(device)
    if n < 0:
        raise RuntimeError(f"n must be non-negative, got {n}")
    d = i64 if dtype is None else dtypes.resolve(dtype)
    begin(())
    return wrap(_sample(_permutation, (int(n), 2), (d,), generator), False)


def _like(f: Callable[..., Tensor], name: str) -> None:
    def like(input: Tensor, *args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
        kwargs.pop("memory_format", None)
        return f(*args, tuple(input._shape), dtype=input._dtype if dtype is None else dtype, **kwargs)

    like.__name__, like.__doc__ = name, f"`{f.__name__}` of another tensor's shape and dtype."
    function(name)(like)


_like(rand, "rand_like")
_like(randn, "randn_like")
_like(randint, "randint_like")


# --- distributions ----------------------------------------------------------------------------------------------------
def _bernoulli(b: Builder, p: Node, bits: Node, dtype: DType) -> Node:
    u = uniform_node(b, bits, f32)
    return cast(b, b.lt(u, expand(b, cast(b, p, f32), u.shape)), dtype)


def _bernoulli_of(p: Any, shape: tuple[int, ...], dtype: DType, generator: Generator | None) -> Node:
    """Ones with probability p (a number or tensor)."""
    begin((p,) if isinstance(p, Tensor) else ())
    chance = node_of(p) if isinstance(p, Tensor) else number(float(p), f32)
    bits = draw(shape, generator)
    made: Node = record(_bernoulli, (chance, bits), (dtype,), False)
    return made


@both()
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """Ones with the probabilities that the elements give (or with `p`)."""
    if not input._dtype.is_float:
        raise DTypeError(f"\"bernoulli_tensor_cpu_p_\" not implemented for '{input._dtype.long_name}'")
    node = _bernoulli_of(input.detach() if p is None else p, tuple(input._shape), input._dtype, generator)
    return wrap(node, False)


def _affine(b: Builder, x: Node, scale: Node, shift: Node) -> Node:
    scale, shift = cast(b, scale, x.dtype), cast(b, shift, x.dtype)
    x, scale, shift = align(b, x, scale, shift)
    return b.add(b.mul(x, scale), shift)


@function("normal")
def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
           device: Any = None, requires_grad: bool = False, out: Any = None) -> Tensor:
    """Normal numbers with means and standard deviations (tensors or numbers)."""
    if isinstance(mean, Tensor) or isinstance(std, Tensor):
        from .nodes import broadcast_shapes

        shape = broadcast_shapes(*[tuple(x._shape) for x in (mean, std) if isinstance(x, Tensor)])
        base = randn(shape, generator=generator, dtype=(mean if isinstance(mean, Tensor) else std).dtype)
        return base * std + mean  # type: ignore[no-any-return]
    if size is None:
        raise TypeError("normal() needs a size when mean and std are numbers")
    return _finish(randn(size, generator=generator, dtype=dtype, device=device) * std + mean, requires_grad)


def _exponential(b: Builder, bits: Node, dtype: DType) -> Node:
    u = uniform_node(b, bits, f32)
    return cast(b, b.neg(b.log1p(b.neg(u))), dtype)


def _race(b: Builder, weights: Node, bits: Node) -> Node:
    """Exponential clocks with the weights as rates: the order in which they ring samples without replacement."""
    weights = cast(b, weights, f32)
    u = b.add(uniform_node(b, bits, f32), b.scalar(2.0 ** -25, f32))
    clock = b.div(b.neg(b.log(u)), weights)
    return b.select(b.gt(weights, b.like(0, weights)), clock, b.like(math.inf, clock))


def _without_replacement(b: Builder, weights: Node, bits: Node, count: int) -> Node:
    axis = len(weights.shape) - 1
    return b.results(b.topk(_race(b, weights, bits), k=count, axis=axis, largest=False))[1]


def _with_replacement(b: Builder, weights: Node, bits: Node, count: int) -> Node:
    """Inverse of the cumulative weights: how many of them lie at or below a uniform share of the total."""
    axis = len(weights.shape) - 1
    running = b.cumsum(cast(b, weights, f64), axis=axis)
    rank = len(weights.shape)
    n = weights.shape[axis]
    lead = weights.shape[:-1]
    total = b.slice(running, start=(0,) * (rank - 1) + (n - 1,), size=(*lead, 1), step=(1,) * rank)
    u = b.mul(uniform_node(b, bits, f64), expand(b, total, (*lead, count)))
    shape = (*lead, count, n)
    wide = b.broadcast(running, shape=shape, dims=(*range(rank - 1), rank))
    at = b.broadcast(u, shape=shape, dims=tuple(range(rank)))
    below = b.sum(b.cast(b.le(wide, at), dtype=i64), axes=(rank,))
    positive = b.gt(weights, b.like(0, weights))
    from_end = b.argmax(cast(b, b.flip(positive, axes=(axis,)), f32), axes=(axis,))
    last = b.sub(b.cast(b.extent(value=n - 1), dtype=i64), from_end)
    return b.minimum(below, b.broadcast(last, shape=below.shape, dims=tuple(range(rank - 1))))


@both()
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn with the (unnormalised) probabilities of each row."""
    shape = tuple(input._shape)
    if not 1 <= len(shape) <= 2:
        raise ShapeError("prob_dist must be 1 or 2 dim")
    if not input._dtype.is_float:
        raise DTypeError(f"multinomial only supports floating-point dtypes for input, got: {input._dtype.long_name}")
    if num_samples < 1:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    weights = input.detach()
    begin((weights,))
    node = node_of(weights)
    if replacement:
        bits = draw((*shape[:-1], num_samples, 2), generator)
        return wrap(record(_with_replacement, (node, bits), (num_samples,), False), False)
    bits = draw(shape, generator)
    return wrap(record(_without_replacement, (node, bits), (num_samples,), False), False)


# --- in place ---------------------------------------------------------------------------------------------------------
def _overwrite(t: Tensor, node: Node) -> Tensor:
    return write(t, node, False)


def _prepare(t: Tensor, name: str) -> None:
    check_leaf(t)
    check_overlap(t)
    if not t._dtype.is_float:
        raise DTypeError(f"\"{name}\" not implemented for '{t._dtype.long_name}'")
    begin((t,)) if TRACE.grad else begin(())


def _scaled_uniform(b: Builder, bits: Node, low: Node, width: Node, dtype: DType) -> Node:
    return b.add(b.mul(uniform_node(b, bits, dtype), width), low)


@method()
def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None,
             **kwargs: Any) -> Tensor:
    """Filled with uniform numbers in [a, b)."""
    low, high = float(kwargs.get("from", a)), float(kwargs.get("to", b))
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    _prepare(self, "uniform")
    d = self._dtype
    bits = draw(_words(tuple(self._shape), d), generator)
    nodes = (bits, number(low, d), number(high - low, d))
    return _overwrite(self, record(_scaled_uniform, nodes, (d,), False))


def _scaled_normal(b: Builder, bits: Node, mean: Node, std: Node, dtype: DType) -> Node:
    return b.add(b.mul(normal_node(b, bits, dtype), std), mean)


@method()
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Filled with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    _prepare(self, "normal")
    d = self._dtype
    bits = draw((*self._shape, 2), generator)
    return _overwrite(self, record(_scaled_normal, (bits, number(float(mean), d), number(float(std), d)), (d,), False))


@method()
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Filled with exponential numbers of a rate."""
    _prepare(self, "exponential")
    node = _sample(_exponential, tuple(self._shape), (self._dtype,), generator)
    if lambd == 1.0:
        return _overwrite(self, node)
    return _overwrite(self, record(_divide, (node, number(float(lambd), self._dtype)), (), False))


def _divide(b: Builder, x: Node, y: Node) -> Node:
    return b.div(x, y)


@method()
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Filled with ones of probability `p`, else zeros."""
    check_leaf(self)
    return _overwrite(self, _bernoulli_of(p, tuple(self._shape), self._dtype, generator))


@method()
def random_(self: Tensor, *bounds: int, generator: Generator | None = None, **kwargs: Any) -> Tensor:
    """Filled with uniform integers: up to a bound, between two, or over the dtype's range."""
    check_leaf(self)
    d = self._dtype
    low, high = 0, (1 << {"f32": 24, "f64": 53, "f16": 11, "bf16": 8}[d.name]) + 1 if d.is_float else int(d.max) + 1
    if len(bounds) == 1:
        high = bounds[0]
    elif len(bounds) == 2:
        low, high = bounds
    low, high = kwargs.get("from", low), kwargs.get("to", high)
    high = 2 if d is boolean and not bounds else high
    begin(())
    words = (*self._shape, 2) if high - low > 1 << 32 else tuple(self._shape)
    return _overwrite(self, _sample(_integers, words, (int(low), int(high), d), generator))


def dropout_mask(b: Builder, bits: Node, keep: Node) -> Node:
    """True with probability `keep` (rank 0, float32)."""
    return b.lt(uniform_node(b, bits, f32), keep)


def _dropout(b: Builder, x: Node, bits: Node, keep: Node) -> Node:
    mask = dropout_mask(b, bits, keep)
    scale = cast(b, b.div(b.scalar(1.0, f32), keep), x.dtype)
    return b.select(mask, b.mul(x, scale), b.like(0, x))


def dropout(input: Tensor, p: float, shape: tuple[int, ...] | None = None) -> Tensor:
    """Elements kept with probability 1 − p and scaled by 1 / (1 − p), else 0.

    `shape` shares the mask by broadcasting.
    """
    tracked = begin((input,))
    x = node_of(input)
    bits = draw(tuple(input._shape) if shape is None else shape, None)
    keep = number(1.0 - float(p), f32)
    fn = _dropout if shape is None else _dropout_shared
    return wrap(record(fn, (x, bits, keep), (), tracked), tracked)


def _dropout_shared(b: Builder, x: Node, bits: Node, keep: Node) -> Node:
    mask = expand(b, dropout_mask(b, bits, keep), x.shape)
    scale = cast(b, b.div(b.scalar(1.0, f32), keep), x.dtype)
    return b.select(mask, b.mul(x, scale), b.like(0, x))


class fork_rng:
    """A `with` block after which the default generator goes on as if nothing had been drawn inside."""

    def __init__(self, devices: Any = None, enabled: bool = True, **kwargs: Any) -> None:
        self._enabled = enabled

    def __enter__(self) -> None:
        if self._enabled:
            self._state = default_generator.get_state()

    def __exit__(self, *exc: object) -> None:
        if self._enabled:
            default_generator.set_state(self._state)


@method()
def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Filled with numbers whose logarithm is normal."""
    return normal_(self, mean, std, generator=generator).exp_()  # type: ignore[no-any-return]
