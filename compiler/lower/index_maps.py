"""Index arithmetic on `Dim` polynomials: splitting and flattening coordinates, with ranges of axes known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...ir.dims import Atom, Compound, Dim, SymDim, floordiv, mod, names, sym

Vector = tuple[Dim, ...]
IsSize = Callable[[str], bool]


def is_size(name: str) -> bool:
    """Whether a name stands for a size (and not for an axis or a value)."""
    return name[0] == "n"


def coefficients(d: Dim) -> dict[tuple[Atom, ...], Dim]:
    """`d` as {product of axes, values and compounds: polynomial in sizes}; `()` holds the constant part."""
    found: dict[tuple[Atom, ...], Dim] = {}
    for mono, coefficient in d.terms if isinstance(d, SymDim) else (((), d),):
        moving = tuple(a for a in mono if not is_invariant(a))
        size: Dim = coefficient
        for atom in mono:
            if is_invariant(atom):
                size = size * SymDim((((atom,), 1),))
        found[moving] = found.get(moving, 0) + size
    return {m: c for m, c in found.items() if c != 0}


def is_invariant(atom: Atom) -> bool:
    """Whether an atom holds sizes only."""
    return is_size(atom) if isinstance(atom, str) else all(map(is_size, [*names(atom.left), *names(atom.right)]))


def flatten(index: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """The row-major position of a coordinate. Undoes `split` exactly."""
    position: Dim = 0
    for i, extent in zip(index, shape, strict=True):
        if extent == 1:
            continue
        whole = _divided(position, extent)
        position = whole if whole is not None and i == mod(whole, extent) else position * extent + i
    return position


def _divided(quotient: Dim, divisor: Dim) -> Dim | None:
    """x, if `quotient` is the indivisible expression `x // divisor`."""
    if isinstance(quotient, SymDim) and len(quotient.terms) == 1:
        (mono, coefficient), = quotient.terms
        if coefficient == 1 and len(mono) == 1 and isinstance(mono[0], Compound):
            atom = mono[0]
            if atom.op == "//" and atom.right == divisor:
                return atom.left
    return None


def split(position: Dim, shape: Sequence[Dim], ranges: Mapping[str, Dim]) -> Vector:
    """The coordinate of a row-major position (known to be in range).

    Args:
        ranges: extents of the axes, by name; they prove that a part of the position is below an extent.
    """
    index: list[Dim] = []
    for at in range(len(shape) - 1, -1, -1):
        extent = shape[at]
        if extent == 1:
            index.append(0)
        elif all(d == 1 for d in shape[:at]):
            index.append(position)
            position = 0
        else:
            position, rest = divide(position, extent, ranges)
            index.append(rest)
    return tuple(reversed(index))


def divide(position: Dim, extent: Dim, ranges: Mapping[str, Dim]) -> tuple[Dim, Dim]:
    """Quotient and remainder of a non-negative position by an extent."""
    quotient: Dim = 0
    rest: Dim = 0
    for moving, coefficient in coefficients(position).items():
        term = _product(moving) * coefficient
        share = floordiv(coefficient, extent)
        if share * extent == coefficient and share != 0:
            quotient = quotient + _product(moving) * share
        else:
            rest = rest + term
    if rest == 0 or _below(rest, extent, ranges):
        return quotient, rest
    return floordiv(position, extent), mod(position, extent)


def _product(atoms: tuple[Atom, ...]) -> Dim:
    return SymDim(((tuple(atoms), 1),)) if atoms else 1


def _below(d: Dim, extent: Dim, ranges: Mapping[str, Dim]) -> bool:
    """Whether `0 <= d < extent` follows from the ranges of the axes."""
    greatest: Dim = 0
    for moving, coefficient in coefficients(d).items():
        if len(moving) != 1 or not isinstance(moving[0], str) or moving[0] not in ranges or not _positive(coefficient):
            return False
        greatest = greatest + coefficient * (ranges[moving[0]] - 1)
    gap = extent - 1 - greatest
    return isinstance(gap, int) and gap >= 0


def _positive(d: Dim) -> bool:
    """Whether an expression in sizes cannot be negative."""
    return d > 0 if isinstance(d, int) else all(c > 0 for _, c in d.terms)


def axis(name: str) -> Dim:
    """The coordinate along an axis."""
    return sym(name)
