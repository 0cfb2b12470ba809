"""Symbolic extents: integer polynomials in named sizes, with floor division, modulo and max.

A `Dim` is an `int` or a `SymDim`. Arithmetic folds to `int` whenever no name is left, and equal polynomials are
equal objects by value, so shapes compare with `==`. Nothing that depends on a batch size is ever a literal.

>>> B = sym("B")
>>> 2 * (B + 1) - B
B+2
>>> (4 * B).evaluate({"B": 8})
32
>>> (4 * B) // 2
2*B
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Union

# An atom is a size's name or a compound: ("//" | "%" | "max", left, right) over polynomials.
Atom = Union[str, "Compound"]
Monomial = tuple["Atom", ...]


class Compound:
    """`left // right`, `left % right` or `max(left, right)` as an indivisible factor of a polynomial."""

    __slots__ = ("_hash", "left", "op", "right")

    def __init__(self, op: str, left: Dim, right: Dim) -> None:
        self.op, self.left, self.right = op, left, right
        self._hash = hash((op, left, right))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Compound)
            and self.op == other.op
            and self.left == other.left
            and self.right == other.right
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if self.op == "max":
            return f"max({self.left},{self.right})"
        return f"{_factor(self.left)}{self.op}{_factor(self.right)}"


def _factor(d: Dim) -> str:
    text = str(d)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _atom_key(a: Atom) -> tuple[int, str]:
    return (0, a) if isinstance(a, str) else (1, repr(a))


class SymDim:
    """A polynomial `sum coefficient * product of atoms` that holds at least one named size. Immutable."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymDim) and (self is other or self.terms == other.terms)

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, (int, SymDim)):
            return NotImplemented
        return _sum(self, other) if other != 0 else self

    __radd__ = __add__

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, (int, SymDim)):
            return NotImplemented
        if isinstance(other, SymDim):
            return _multiplied(self, other)
        if other == 1 or other == 0:
            return self if other else 0
        return SymDim(tuple([(mono, coeff * int(other)) for mono, coeff in self.terms]))

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The value under a binding of the names. Raises KeyError for an unbound name."""
        total = 0
        for mono, coeff in self.terms:
            for atom in mono:
                coeff *= sizes[atom] if isinstance(atom, str) else _eval_compound(atom, sizes)
            total += coeff
        return total

    def __repr__(self) -> str:
        parts: list[str] = []
        for mono, coeff in self.terms:
            body = "*".join(str(a) if isinstance(a, str) or a.op == "max" else f"({a!r})" for a in mono)
            if not mono:
                text = str(abs(coeff))
            elif abs(coeff) == 1:
                text = body
            else:
                text = f"{abs(coeff)}*{body}"
            sign = "-" if coeff < 0 else "+" if parts else ""
            parts.append(sign + text)
        text = "".join(parts)
        single = (
            len(self.terms) == 1
            and text.startswith("(")
            and self.terms[0][1] == 1
            and len(self.terms[0][0]) == 1
        )
        return text[1:-1] if single else text


Dim = Union[int, SymDim]  # noqa: UP007  (the class is not defined when annotations above name it)


def sym(name: str) -> SymDim:
    """The named size `name`."""
    return SymDim((((name,), 1),))


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    return d.terms if isinstance(d, SymDim) else (((), int(d)),)


def _term_key(item: tuple[Monomial, int]) -> tuple[int, tuple[tuple[int, str], ...]]:
    mono = item[0]  # constants last, higher degrees first
    return (-len(mono), tuple(_atom_key(a) for a in mono))


def _build(total: Mapping[Monomial, int]) -> Dim:
    terms = tuple(sorted(((m, c) for m, c in total.items() if c), key=_term_key))
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    return SymDim(terms)


# Passes build the same few polynomials again and again; they are compared by value, so each is made once.
@lru_cache(maxsize=16384)
def _sum(a: SymDim, b: Dim) -> Dim:
    total = dict(a.terms)
    for mono, coeff in _terms(b):
        total[mono] = total.get(mono, 0) + coeff
    return _build(total)


@lru_cache(maxsize=16384)
def _multiplied(a: SymDim, b: SymDim) -> Dim:
    total: dict[Monomial, int] = {}
    for m1, c1 in a.terms:
        for m2, c2 in b.terms:
            mono = tuple(sorted(m1 + m2, key=_atom_key))
            total[mono] = total.get(mono, 0) + c1 * c2
    return _build(total)


def _eval_compound(c: Compound, sizes: Mapping[str, int]) -> int:
    left, right = evaluate(c.left, sizes), evaluate(c.right, sizes)
    if c.op == "//":
        return left // right
    return left % right if c.op == "%" else max(left, right)


def evaluate(d: Dim, sizes: Mapping[str, int]) -> int:
    """`d` as an integer under a binding of the named sizes."""
    return d if isinstance(d, int) else d.evaluate(sizes)


def _compound(op: str, left: Dim, right: Dim) -> Dim:
    return SymDim((((Compound(op, left, right),), 1),))


@lru_cache(maxsize=4096)
def floordiv(left: Dim, right: Dim) -> Dim:
    """`left // right` (right > 0), exact wherever every coefficient divides."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if right == 1:
        return left
    if left == right:
        return 1
    if isinstance(right, int):  # floor((q*r + rest) / r) = q + floor(rest / r)
        whole = _build({m: c // right for m, c in _terms(left) if c % right == 0})
        rest = _build({m: c for m, c in _terms(left) if c % right})
        if isinstance(rest, int):
            return whole + rest // right
        return whole + _compound("//", rest, right)
    elif len(right.terms) == 1:
        mono, coeff = right.terms[0]
        quotient = {
            _without(m, mono): c // coeff for m, c in _terms(left) if c % coeff == 0 and _holds(m, mono)
        }
        if len(quotient) == len(_terms(left)):
            return _build(quotient)
    return _compound("//", left, right)


def _holds(mono: Monomial, part: Monomial) -> bool:
    rest = list(mono)
    for atom in part:
        if atom not in rest:
            return False
        rest.remove(atom)
    return True


def _without(mono: Monomial, part: Monomial) -> Monomial:
    rest = list(mono)
    for atom in part:
        rest.remove(atom)
    return tuple(rest)


@lru_cache(maxsize=4096)
def mod(left: Dim, right: Dim) -> Dim:
    """`left % right` (right > 0)."""
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    if isinstance(right, int):  # multiples of `right` drop out
        left = _build({m: c % right for m, c in _terms(left)})
        if isinstance(left, int):
            return left % right
    elif not any(isinstance(a, Compound) for m, _ in _terms(floordiv(left, right)) for a in m):
        return left - floordiv(left, right) * right
    return _compound("%", left, right)


@lru_cache(maxsize=4096)
def dmax(left: Dim, right: Dim) -> Dim:
    """The greater of two extents."""
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    gap = left - right
    if isinstance(gap, int):
        return left if gap >= 0 else right
    # Sizes are never negative, so a difference whose coefficients all have one sign decides the comparison.
    if all(c >= 0 for _, c in gap.terms):
        return left
    if all(c <= 0 for _, c in gap.terms):
        return right
    return _compound("max", *sorted((left, right), key=str))


def not_negative(d: Dim) -> bool:
    """Whether an expression is known not to be negative, whatever the sizes: no term of it can be."""
    if isinstance(d, int):
        return d >= 0
    return all(c > 0 and all(isinstance(a, str) for a in monomial) for monomial, c in d.terms)


def product(dims: tuple[Dim, ...] | list[Dim]) -> Dim:
    """The product of extents (1 for none)."""
    total: Dim = 1
    for d in dims:
        total = total * d
    return total


def names(d: Dim) -> Iterator[str]:
    """The named sizes of an extent, in a fixed order, possibly repeated."""
    if isinstance(d, int):
        return
    for mono, _ in d.terms:
        for atom in mono:
            if isinstance(atom, str):
                yield atom
            else:
                yield from names(atom.left)
                yield from names(atom.right)


def substitute(d: Dim, replace: Callable[[str], Dim]) -> Dim:
    """`d` with every named size replaced."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for mono, coeff in d.terms:
        value: Dim = coeff
        for atom in mono:
            if isinstance(atom, str):
                value = value * replace(atom)
            else:
                left, right = substitute(atom.left, replace), substitute(atom.right, replace)
                value = value * {"//": floordiv, "%": mod, "max": dmax}[atom.op](left, right)
        total = total + value
    return total
