"""Merging loops: adjacent axes that every index map walks as one become one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.dims import Compound, Dim, SymDim, names, substitute, sym
from .index_maps import coefficients
from .kernel_ir import Axis, Bound, Check, Index, Instruction, Kernel, Load, Store


def collapse(kernel: Kernel, apart: Sequence[str] = ()) -> Kernel:
    """The kernel with as few axes as its index maps allow. Kept and reduced axes don't mix; order is preserved.

    Args:
        apart: axes that stay alone.
    """
    for reduced in (False, True):
        axes = list(kernel.reduced if reduced else kernel.kept)
        at = len(axes) - 2
        while at >= 0:
            outer, inner = axes[at], axes[at + 1]
            free = outer.name not in apart and inner.name not in apart
            if free and all(_linear(d, outer, inner) for i in kernel.body for d in _maps(i)):
                merged = Axis(outer.name, outer.extent * inner.extent)
                kernel = replace(kernel, body=tuple(_merge(i, outer, inner) for i in kernel.body))
                axes[at:at + 2] = [merged]
            at -= 1
        kernel = replace(kernel, reduced=tuple(axes)) if reduced else replace(kernel, kept=tuple(axes))
    return kernel


def _maps(instruction: Instruction) -> tuple[Dim, ...]:
    match instruction:
        case Load(address=d) | Store(address=d) | Index(value=d) | Check(extent=d):
            return (d,)
        case Bound(at=at, low=low, high=high):
            return (at, low or 0, high)
    return ()


def _linear(d: Dim, outer: Axis, inner: Axis) -> bool:
    """Whether `d` uses the two axes only as `c * (outer * inner.extent + inner)`."""
    if isinstance(d, int):
        return True
    used = set(names(d))
    if outer.name not in used and inner.name not in used:
        return True
    strides: dict[str, Dim] = {outer.name: 0, inner.name: 0}
    for moving, coefficient in coefficients(d).items():
        touched = [a for a in moving if _mentions(a, outer.name) or _mentions(a, inner.name)]
        if not touched:
            continue
        if len(moving) != 1 or not isinstance(moving[0], str):
            return False
        strides[moving[0]] = coefficient
    return strides[outer.name] == strides[inner.name] * inner.extent


def _mentions(atom: str | Compound, name: str) -> bool:
    return atom == name if isinstance(atom, str) else name in (*names(atom.left), *names(atom.right))


def _merge(instruction: Instruction, outer: Axis, inner: Axis) -> Instruction:
    """The merged axis takes the outer name: the outer terms vanish, the inner ones carry the whole position."""
    moved: dict[str, Dim] = {outer.name: 0, inner.name: sym(outer.name)}

    def rename(d: Dim) -> Dim:
        return substitute(d, lambda name: moved.get(name, sym(name))) if isinstance(d, SymDim) else d

    match instruction:
        case Load(address=d):
            return replace(instruction, address=rename(d))
        case Store(address=d):
            return replace(instruction, address=rename(d))
        case Index(value=d):
            return replace(instruction, value=rename(d))
        case Bound(at=d):
            return replace(instruction, at=rename(d))
    return instruction
