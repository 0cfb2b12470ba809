"""Canonical forms: one way to write what can be written in several. Moves elements, never computes.

- constants stand on the right; a uniform array is a broadcast scalar;
- an elementwise operator over repeated operands is done before the repetition; scalars splat by themselves;
- broadcasts have no stretched axes: `[B,1]` to `[B,N]` is a broadcast of `[B]`, so a reduction's `keepdim`
vanishes;
- chains of reshapes, permutes, broadcasts, slices, flips are one each, and none if they do nothing; so are steps of
a random generator;
- axes of contractions are named, not moved: permutes go into `dot`.

The order of summation stays what the graph says with one exception: a sum over repeated elements is a
product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.build import Builder
from ....ir.dims import Dim, product
from ....ir.graph import Graph
from ....ir.node import Node
from ....ir.opdef import Kind
from ..rewriting import inline
from .casts import CAST_RULES
from .contractions import CONTRACTION_RULES
from .joins import joined_parts
from .local import ELEMENTWISE, Local, Rules, joined
from .patterns import is_scalar_constant
from .shapes import reshaped_broadcast

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne"})
_MIRRORED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


# -- elementwise ---------------------------------------------------------------------------------------------


def constants_right(b: Builder, n: Node) -> Node | None:
    """`2 * x` → `x * 2`, `0 < x` → `x > 0`."""
    x, y = n.inputs
    if not is_scalar_constant(x) or is_scalar_constant(y):
        return None
    name = _MIRRORED.get(n.op.name, n.op.name)
    return Node.make(name, (y, x), (), n.place)


def before_broadcast(b: Builder, n: Node) -> Node | None:
    """`f(broadcast(x), broadcast(y))` → `broadcast(f(x, y))`; broadcast scalars splat by themselves."""
    sources = []
    shared: Node | None = None  # a broadcast of rank > 0 whose pattern the others must have
    full = False
    changed = False
    for i in n.inputs:
        if i.op.kind is not Kind.BROADCAST:
            full = full or bool(i.shape)
            sources.append(i)
        elif not i.inputs[0].shape:
            sources.append(i.inputs[0])
            changed = True
        else:
            full = full or (shared is not None and not _same_broadcast(shared, i))
            shared = shared or i
            sources.append(i)
    if not full and shared is not None:
        inner = Node.make(n.op, [_source(s) for s in sources], n.attrs, n.place)
        return b.broadcast(inner, shape=shared.shape, dims=shared.attrs.dims)
    if not changed:
        return None
    if full:
        return n.with_inputs(sources)
    return b.splat(n.with_inputs(sources), n.shape)


def _source(n: Node) -> Node:
    return n.inputs[0] if n.op.kind is Kind.BROADCAST else n


def _same_broadcast(a: Node, c: Node) -> bool:
    same_source: bool = a.inputs[0].shape == c.inputs[0].shape
    return same_source and a.attrs.dims == c.attrs.dims and a.shape == c.shape


def uniform_constant(b: Builder, n: Node) -> Node | None:
    """An array of one repeated value → a broadcast scalar."""
    array = n.attrs.value.array
    if array.ndim == 0 or array.size == 0:
        return None
    first = array.reshape(-1)[:1].tobytes()
    if n.attrs.value.tobytes() != first * array.size:
        return None
    return b.splat(b.constant(array.reshape(-1)[0], n.dtype), n.shape)


# -- movement ------------------------------------------------------------------------------------------------


def broadcast_form(b: Builder, n: Node) -> Node | None:
    """No identity, no chain, no stretched axis; one that only adds axes of extent 1 is a reshape."""
    x, = n.inputs
    shape, dims = n.shape, n.attrs.dims
    if x.shape == shape:
        return x
    if x.op.name == "broadcast":
        inner = tuple(dims[d] for d in x.attrs.dims)
        return b.broadcast(x.inputs[0], shape=shape, dims=inner)
    stretched = {i for i, (axis, d) in enumerate(zip(dims, x.shape, strict=True)) if d != shape[axis]}
    if stretched:
        kept = [i for i in range(len(dims)) if i not in stretched]
        slim = b.reshape(x, shape=tuple(x.shape[i] for i in kept))
        return b.broadcast(slim, shape=shape,
                           dims=tuple(dims[i] for i in kept))
    if x.shape and all(d == 1 for axis, d in enumerate(shape) if axis not in dims):
        return b.reshape(x, shape=shape)
    return None


def reshape_form(b: Builder, n: Node) -> Node | None:
    """No identity, no chain; below a broadcast where that can be said."""
    x, = n.inputs
    if x.shape == n.shape:
        return x
    if x.op.name == "reshape":
        return b.reshape(x.inputs[0], shape=n.shape)
    if x.op.name == "broadcast":
        source = x.inputs[0]
        moved = reshaped_broadcast(source.shape, x.attrs.dims, x.shape, n.shape)
        if moved is not None:
            inner = b.reshape(source, shape=moved[0])
            return b.broadcast(inner, shape=n.shape, dims=moved[1])
    return None


def permute_form(b: Builder, n: Node) -> Node | None:
    """No identity, no chain; a reshape where only axes of extent 1 move; below a broadcast."""
    x, = n.inputs
    dims = n.attrs.dims
    if dims == tuple(range(len(dims))):
        return x
    if x.op.name == "permute":
        return b.permute(x.inputs[0],
                         dims=tuple(x.attrs.dims[d] for d in dims))
    moving = [d for d in dims if x.shape[d] != 1]
    if moving == sorted(moving):
        return b.reshape(x, shape=n.shape)
    if x.op.name == "broadcast":
        return _permuted_broadcast(b, n, x)
    return None


def _permuted_broadcast(b: Builder, n: Node, x: Node) -> Node:
    """permute(broadcast(s)) → broadcast(permute(s))."""
    source, old = x.inputs[0], x.attrs.dims
    new_axis = {old_axis: new for new, old_axis in enumerate(n.attrs.dims)}
    order = sorted(range(len(old)), key=lambda i: new_axis[old[i]])
    inner = b.permute(source, dims=tuple(order)) if order else source
    return b.broadcast(inner, shape=n.shape,
                       dims=tuple(new_axis[old[i]] for i in order))


def slice_form(b: Builder, n: Node) -> Node | None:
    """No identity, no chain; a slice that is one part of a concatenation is that part."""
    x, = n.inputs
    a = n.attrs
    if x.shape == n.shape and all(s == 0 for s in a.start) and all(k == 1 for k in a.step):
        return x
    if x.op.name == "slice":
        inner = x.attrs
        start = tuple(i + s * k for i, k, s in zip(inner.start, inner.step, a.start, strict=True))
        step = tuple(k * m for k, m in zip(inner.step, a.step, strict=True))
        return b.slice(x.inputs[0], start=start, size=a.size, step=step)
    if x.op.name == "concat":
        return _part(n, x)
    return None


def _part(n: Node, x: Node) -> Node | None:
    a, axis = n.attrs, x.attrs.axis
    at: Dim = 0
    if any(k != 1 for k in a.step) or any(s != 0 for i, s in enumerate(a.start) if i != axis):
        return None
    for part in x.inputs:
        if a.start[axis] == at and part.shape == n.shape:
            return part
        at = at + part.shape[axis]
    return None


def concat_form(b: Builder, n: Node) -> Node | None:
    """No concatenation of one part; a nested one along the same axis is flat."""
    if len(n.inputs) == 1:
        return n.inputs[0]
    axis = n.attrs.axis
    nested = [x.op.name == "concat" and x.attrs.axis == axis for x in n.inputs]
    if not any(nested):
        return None
    parts = [p for x, inner in zip(n.inputs, nested, strict=True) for p in (x.inputs if inner else (x,))]
    return b.concat(*parts, axis=axis)


def pad_form(b: Builder, n: Node) -> Node | None:
    """No padding by nothing; pure cropping is a slice."""
    x = n.inputs[0]
    pads = n.attrs.pads
    if all(p == (0, 0, 0) for p in pads):
        return x
    if all(inner == 0 and isinstance(low, int) and isinstance(high, int) and low <= 0 and high <= 0
           for low, high, inner in pads):
        return b.slice(x, start=tuple(-p[0] for p in pads), size=n.shape,
                       step=(1,) * len(pads))
    return None


def flip_form(b: Builder, n: Node) -> Node | None:
    """No flip of nothing; two flips are one."""
    x, = n.inputs
    axes = n.attrs.axes
    if not axes:
        return x
    if x.op.name == "flip":
        return b.flip(x.inputs[0],
                      axes=tuple(sorted(set(axes) ^ set(x.attrs.axes))))
    return None if axes == tuple(sorted(axes)) else b.flip(x, axes=tuple(sorted(axes)))


def advance_form(b: Builder, n: Node) -> Node | None:
    """A generator that moves on twice moves on once; each time by whole blocks of four."""
    x, = n.inputs
    if x.op.name != "random_advance":
        return None
    return b.random_advance(x.inputs[0], count=(x.attrs.count + 3) // 4 * 4 + n.attrs.count)


def result_form(b: Builder, n: Node) -> Node | None:
    """A branch on a constant is the side it takes."""
    branch, = n.inputs
    if branch.op.name != "cond" or not is_scalar_constant(branch.inputs[0]):
        return None
    taken = branch.attrs.then if branch.inputs[0].attrs.value.array else branch.attrs.other
    side = inline(taken, branch.inputs[1:])
    return side[int(n.attrs.index)]


# -- reductions ----------------------------------------------------------------------------------------------


def reduce_form(b: Builder, n: Node) -> Node | None:
    """Axes in rising order (they are summed in row-major order in any case); none is the operand."""
    axes = n.attrs.axes
    if not axes:
        return n.inputs[0] if n.inputs[0].type == n.type else None
    if axes != tuple(sorted(axes)):
        return Node.make(n.op, n.inputs, n.attrs._replace(axes=tuple(sorted(axes))), n.place)
    return None


def sum_of_broadcast(b: Builder, n: Node) -> Node | None:
    """A sum over repeated elements → their number times one of them.

    This changes bits: one rounding instead of many (and 0 instead of NaN where infinities are repeated 0
    times is not kept). It depends on the axes alone, never on their extents.
    """
    x, = n.inputs
    if x.op.name != "broadcast":
        return None
    source, dims, axes = x.inputs[0], x.attrs.dims, n.attrs.axes
    repeated = [a for a in axes if a not in dims]
    if not repeated:
        return None
    # An argument of the kernel, also where it is a number by now: the next size must not need another kernel.
    count = b.extent(value=product([x.shape[a] for a in repeated]))
    inner = source
    summed = tuple(i for i, d in enumerate(dims) if d in axes)
    if summed:
        inner = b.sum(source, axes=summed)
    kept = [a for a in range(len(x.shape)) if a not in axes]
    place = {a: i for i, a in enumerate(kept)}
    wide = n.dtype.compute  # a sixteen-bit float may not hold the number
    total = b.cast(b.mul(b.cast(inner, dtype=wide), b.cast(count, dtype=wide)), dtype=n.dtype)
    new_dims = tuple(place[d] for d in dims if d not in axes)
    return b.broadcast(total, shape=n.shape, dims=new_dims)


_REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")

RULES: Rules = joined(
    dict.fromkeys((*sorted(COMMUTATIVE), *_MIRRORED), (constants_right,)),
    {ELEMENTWISE: (before_broadcast,)},
    {"constant": (uniform_constant,), "broadcast": (broadcast_form,), "reshape": (reshape_form,),
     "permute": (permute_form,), "slice": (slice_form,), "concat": (concat_form,), "pad": (pad_form,),
     "flip": (flip_form,), "random_advance": (advance_form,), "result": (result_form,)},
    {"add": (joined_parts,)},
    dict.fromkeys(_REDUCTIONS, (reduce_form,)),
    {"sum": (sum_of_broadcast,)},
    CAST_RULES,
    CONTRACTION_RULES,
)


@dataclass(frozen=True)
class Canonicalize:
    """Bring every node into its canonical form."""

    name: ClassVar[str] = "canonicalize"

    def run(self, graph: Graph) -> Graph:
        return Local(RULES).run(graph)
