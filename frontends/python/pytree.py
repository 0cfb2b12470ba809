"""Nested tuples, lists and dicts of tensors as flat lists, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .tensor import Tensor

LEAF = "*"  # stands for a tensor in a tree's structure


def flatten(tree: Any, leaves: list[Tensor]) -> Any:
    """Append the tree's tensors to `leaves`; returns the hashable structure around them.

    Everything that is not a tensor or container stays in the structure as it is.
    """
    if isinstance(tree, Tensor):
        leaves.append(tree)
        return LEAF
    cls = tree.__class__
    if cls is tuple or cls is list:
        return (cls, tuple([flatten(x, leaves) for x in tree]))
    if cls is dict or cls is OrderedDict:
        return (cls, tuple([(k, flatten(v, leaves)) for k, v in tree.items()]))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return (cls, tuple([flatten(x, leaves) for x in tree]))
    return Constant(tree)


def flatten_call(args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Tensor]) -> Any:
    """`flatten((args, kwargs), leaves)`, quick where the arguments are tensors."""
    row = []
    for x in args:
        if isinstance(x, Tensor):
            leaves.append(x)
            row.append(LEAF)
        else:
            row.append(flatten(x, leaves))
    return (tuple, ((tuple, tuple(row)), flatten(kwargs, leaves) if kwargs else _NO_KEYWORDS))


_NO_KEYWORDS = (dict, ())


class Constant:
    """A value in a tree's structure; equal by type and value, or by identity if it cannot be hashed."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._hash = hash((value.__class__, value))
        except TypeError:
            self._hash = id(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constant) or self.value.__class__ is not other.value.__class__:
            return False
        if self.value is other.value:
            return True
        if isinstance(self.value, float):
            return self.value == other.value and str(self.value) == str(other.value)
        try:
            hash(self.value)
            return bool(self.value == other.value)
        except (TypeError, ValueError):
            return False


def unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The tree of a structure, its tensors taken from `leaves` in order."""
    if structure is LEAF:
        return next(leaves)
    if structure.__class__ is Constant:
        return structure.value
    cls, parts = structure
    if cls is tuple:
        return tuple([unflatten(p, leaves) for p in parts])
    if cls is list:
        return [unflatten(p, leaves) for p in parts]
    if cls is dict or cls is OrderedDict:
        return cls((k, unflatten(v, leaves)) for k, v in parts)
    return cls(*[unflatten(p, leaves) for p in parts])


def map_tensors(f: Callable[[Tensor], Any], tree: Any) -> Any:
    """The tree with `f` applied to every tensor."""
    leaves: list[Tensor] = []
    structure = flatten(tree, leaves)
    return unflatten(structure, iter([f(x) for x in leaves]))


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors of a tree in order."""
    leaves: list[Tensor] = []
    flatten(tree, leaves)
    return leaves


Tree = Any
Leaves = Sequence[Tensor]
