"""What each operator can be in a group, and when computing a value several times is cheap."""

from __future__ import annotations

import enum
from itertools import pairwise

from ...ir.dims import product
from ...ir.node import Node
from ...ir.opdef import Kind
from ..lower.scalars import cost as scalar_cost
from ..lower.sizes import reshape_groups
from ..lower.values import PHILOX_COST

# A value that is computed again and again (for every row, say) may cost at most so many operations.
CHEAP = 4
# A value may be computed once in each of several kernels instead of being written and read, up to this cost.
REPEATABLE = 40
_CHEAP_SCALAR = 8


class Role(enum.Enum):
    """Part of a node in fusion."""

    LEAF = "leaf"  # inputs, constants, results of walls: there already
    VIEW = "view"  # moves indices: part of whoever reads it
    LOOP = "loop"  # one value an element
    REDUCTION = "reduction"
    CORE = "core"  # a contraction
    WALL = "wall"  # a kernel of its own, control flow


_VIEWS = frozenset({"broadcast", "permute", "slice", "flip", "reshape", "iota", "extent", "stop_gradient"})
_LOOPS = frozenset({"pad", "concat", "random_bits", "random_advance"})
# Views that rename memory and never need a kernel.
ALIASES = frozenset({"reshape", "stop_gradient"})
# What the operands of a contraction may be read through without a copy.
OPERAND_VIEWS = frozenset({"broadcast", "permute", "slice", "reshape", "stop_gradient"})


def role(node: Node) -> Role:
    """The part of a node in fusion."""
    kind, name = node.op.kind, node.op.name
    if kind is Kind.INPUT or name == "result":
        return Role.LEAF
    if name in _VIEWS:
        return Role.VIEW
    if kind is Kind.ELEMENTWISE:
        # Cheap scalars are computed wherever they are needed: once a kernel.
        return Role.VIEW if not node.tensor_type.rank and scalar_cost(node) <= _CHEAP_SCALAR else Role.LOOP
    if kind is Kind.GATHER or name in _LOOPS or one_slice(node):
        return Role.LOOP
    if kind is Kind.REDUCTION:
        return Role.REDUCTION
    return Role.CORE if kind is Kind.CONTRACTION else Role.WALL


def one_slice(node: Node) -> bool:
    """Whether a scatter moves one whole slice, which is a comparison per element."""
    if node.op.name not in ("scatter", "scatter_add"):
        return False
    x, where, _ = node.inputs
    return all(d == (1 if i == node.attrs.axis else x.shape[i]) for i, d in enumerate(where.shape))


def cost(node: Node) -> int:
    """Rough operations of one element."""
    if node.op.name == "random_bits":
        return PHILOX_COST
    if node.op.kind is Kind.ELEMENTWISE:
        return scalar_cost(node)
    return 4 if node.op.kind is Kind.GATHER or node.op.name in ("pad", "concat") else 1


def checks(node: Node) -> bool:
    """Whether the node stops the run for a bad index."""
    return node.op.fallible


def repeats(node: Node, operand: Node) -> bool:
    """Whether the node may evaluate an operand more often than it has elements, in the innermost loop."""
    if node.op.name in ("pad", "concat"):
        return True
    if node.op.name in ("gather", "index_select"):
        return operand is node.inputs[0]
    if node.op.name in ("scatter", "scatter_add"):
        return operand is not node.inputs[0]
    if node.op.name != "broadcast":
        return False
    (x,) = node.inputs
    # A broadcast behind leading axes is evaluated once a row.
    leading = node.attrs.dims == tuple(range(len(node.attrs.dims))) and x.shape == node.shape[:len(x.shape)]
    return not leading and product(x.shape) != product(node.shape)


def turns(node: Node) -> bool:
    """Whether a permute puts another axis innermost."""
    if node.op.name != "permute":
        return False
    shape = node.inputs[0].shape
    innermost = max((axis for axis, d in enumerate(shape) if d != 1), default=-1)
    last = [axis for axis in node.attrs.dims if shape[axis] != 1][-1:]
    return last not in ([], [innermost])


def joins_apart(permute: Node, user: Node) -> bool:
    """Whether a reshape of a permute joins axes that do not lie behind one another in the permute's operand."""
    if user.op.name != "reshape":
        return False
    dims = permute.attrs.dims
    return any(dims[b] != dims[a] + 1 for ins, _ in reshape_groups(permute.shape, user.shape)
               for a, b in pairwise(ins))
