"""Attention as one operator and its derivative: made by the pass `attention` from the primitives it consists of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import Dim
from ..dtypes import i64
from ..errors import DTypeError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, Sample, register
from ..types import TensorType, TupleType, Type
from ._common import Array, quiet, require, same_dtype, show, tensor, wide

_ATTRS = (
    Attr("scale", "float"),
    Attr("causal", "bool", False),
    Attr("diagonal", "dim", 0),
    Attr("visible", "bool", True),
    Attr("hidden", "float", float("-inf")),
)

_MASK_DOC = (
    "Scores are q·kᵀ·scale. With `causal`, row i takes part in columns up to i + `diagonal`. A boolean mask "
    "[*batch, T, S] sets the scores of pairs for which it is not `visible` to `hidden`; a float mask is added. A row "
    "that nothing takes part in gives NaN."
)


# -- types -----------------------------------------------------------------------------------------------------------


def _check(op: str, operands: Sequence[Type], mask: Sequence[Type]) -> list[TensorType]:
    """q [*batch, T, D], k [*batch, S, D], v [*batch, S, E] and a mask [*batch, T, S]."""
    q, k, v = (tensor(op, x) for x in operands)
    require(op, q, kinds=("float",))
    same_dtype(op, q, k, v)
    batch = q.shape[:-2]
    if q.rank < 2 or not q.rank == k.rank == v.rank or k.shape[:-2] != batch or v.shape[:-2] != batch:
        raise ShapeError(f"{op}: q {show(q.shape)}, k {show(k.shape)} and v {show(v.shape)} need equal leading axes "
                         "and two more")
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"{op}: q {show(q.shape)}, k {show(k.shape)} and v {show(v.shape)} do not fit")
    if len(mask) > 1:
        raise ShapeError(f"{op} takes one mask, got {len(mask)}")
    for t in (tensor(op, m) for m in mask):
        if t.shape != (*batch, q.shape[-2], k.shape[-2]):
            raise ShapeError(f"{op}: the mask {show(t.shape)} does not have the scores' shape "
                             f"{show((*batch, q.shape[-2], k.shape[-2]))}")
        if not t.dtype.is_bool and t.dtype not in (q.dtype, q.dtype.compute):
            raise DTypeError(f"{op}: a mask is boolean or {q.dtype.long_name}, got {t}")
    return [q, k, v]


def _infer_attention(attrs: Any, q: Type, k: Type, v: Type, *mask: Type) -> Type:
    qt, _, vt = _check("attention", (q, k, v), mask)
    rows = qt.shape[:-1]
    return TupleType((qt.with_shape((*rows, vt.shape[-1])), TensorType(qt.dtype.compute, rows)))


def _infer_grad(attrs: Any, q: Type, k: Type, v: Type, out: Type, lse: Type, g: Type, *mask: Type) -> Type:
    name = "attention_grad"
    qt, kt, vt = _check(name, (q, k, v), mask)
    result, logs = qt.with_shape((*qt.shape[:-1], vt.shape[-1])), TensorType(qt.dtype.compute, qt.shape[:-1])
    if tensor(name, out) != result or tensor(name, g) != result:
        raise ShapeError(f"{name}: the result {out} and its cotangent {g} must be of type {result}")
    if tensor(name, lse) != logs:
        raise ShapeError(f"{name}: the rows' logarithms {lse} must be of type {logs}")
    return TupleType((qt, kt, vt))


# -- reference -------------------------------------------------------------------------------------------------------


def _hidden(attrs: Any, shape: tuple[int, ...], mask: Array | None) -> tuple[Array, Array]:
    """Which pairs the causal rule and which a boolean mask hides."""
    row, column = np.arange(shape[-2])[:, None], np.arange(shape[-1])
    late = np.broadcast_to(column > row + attrs.diagonal if attrs.causal else np.False_, shape)
    masked = mask != attrs.visible if mask is not None and mask.dtype == np.bool_ else np.False_
    return late, np.broadcast_to(masked, shape)


def _scores(attrs: Any, q: Array, k: Array, mask: Array | None) -> tuple[Array, Array]:
    """Scores, and which of them no gradient goes through."""
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(attrs.scale)
    late, masked = _hidden(attrs, scores.shape, mask)
    if mask is not None and mask.dtype != np.bool_:
        scores = scores + mask.astype(q.dtype)
    scores = np.where(masked, q.dtype.type(attrs.hidden), scores)
    return np.where(late, q.dtype.type(-np.inf), scores), late | masked


def _attention(attrs: Any, t: Any, q: Array, k: Array, v: Array, *mask: Array) -> tuple[Array, Array]:
    dtype, q, k, v = q.dtype, wide(q), wide(k), wide(v)
    scores, _ = _scores(attrs, q, k, mask[0] if mask else None)
    top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(top == -np.inf, q.dtype.type(0), top))
    total = np.sum(powers, axis=-1, keepdims=True)
    out = np.matmul(powers, v) / total
    return out.astype(dtype), (top + np.log(total))[..., 0].astype(q.dtype)


def _attention_grad(attrs: Any, t: Any, q: Array, k: Array, v: Array, out: Array, lse: Array, g: Array,
                    *mask: Array) -> tuple[Array, ...]:
    dtype, q, k, v, out, g = q.dtype, *map(wide, (q, k, v, out, g))
    scores, cut = _scores(attrs, q, k, mask[0] if mask else None)
    unseen = scores == -np.inf
    powers = np.where(unseen, q.dtype.type(0), np.exp(scores - lse[..., None]))
    delta = np.sum(out * g, axis=-1, keepdims=True)
    slopes = powers * (np.matmul(g, np.swapaxes(v, -1, -2)) - delta) * q.dtype.type(attrs.scale)
    slopes = np.where(cut | unseen, q.dtype.type(0), slopes)
    found = np.matmul(slopes, k), np.matmul(np.swapaxes(slopes, -1, -2), q), np.matmul(np.swapaxes(powers, -1, -2), g)
    return tuple(x.astype(dtype) for x in found)


# -- derivatives -----------------------------------------------------------------------------------------------------


class _Parts:
    """An attention's matrices as primitives, in the compute dtype: what its derivatives are made of where no kernel
    covers them (second derivatives, masks that are learnt)."""

    def __init__(self, b: Builder, node: Node, q: Node, k: Node, v: Node, lse: Node, mask: Node | None) -> None:
        self.b, self.attrs, self.dtype = b, node.attrs, q.dtype
        self.wide = q.dtype.compute
        self.q, self.k, self.v, self.lse = (self.widened(x) for x in (q, k, v, lse))
        self.mask, self.n = mask, len(q.shape) - 2
        self.shape: tuple[Dim, ...] = (*q.shape[:-1], k.shape[-2])
        self.cut = self._cut()
        scores = self.scaled(self.product(self.q, self.k, (1, 1)))
        if mask is not None and mask.dtype.is_float:
            scores = b.add(scores, self.widened(mask))
        elif mask is not None:
            scores = b.select(self._masked(mask), b.full(node.attrs.hidden, self.wide, self.shape), scores)
        powers = b.exp(b.sub(scores, self.spread(self.lse)))
        late = self._late()
        self.powers = powers if late is None else b.select(late, self.zeros(), powers)

    def widened(self, x: Node) -> Node:
        return x if x.dtype is self.wide else self.b.cast(x, dtype=self.wide)

    def narrowed(self, x: Node) -> Node:
        return x if x.dtype is self.dtype else self.b.cast(x, dtype=self.dtype)

    def zeros(self) -> Node:
        return self.b.full(0, self.wide, self.shape)

    def scaled(self, x: Node) -> Node:
        return self.b.mul(x, self.b.like(self.attrs.scale, x))

    def product(self, x: Node, y: Node, contract: tuple[int, int]) -> Node:
        """A product of matrices: contracted over axis 0 or 1 of each."""
        batch = tuple(range(self.n))
        return self.b.dot(x, y, contract_a=(self.n + contract[0],), contract_b=(self.n + contract[1],), batch_a=batch,
                          batch_b=batch)

    def spread(self, rows: Node) -> Node:
        """One value a row, for all columns."""
        return self.b.broadcast(rows, shape=self.shape, dims=tuple(range(self.n + 1)))

    def total(self, x: Node) -> Node:
        """Sums of rows."""
        return self.b.sum(x, axes=(len(x.shape) - 1,))

    def _late(self) -> Node | None:
        if not self.attrs.causal:
            return None
        row, column = (self.b.iota(shape=self.shape, axis=self.n + i, dtype=i64) for i in (0, 1))
        return self.b.gt(column, self.b.add(row, self.b.dim(self.attrs.diagonal)))

    def _masked(self, mask: Node) -> Node:
        return self.b.not_(mask) if self.attrs.visible else mask

    def _cut(self) -> Node | None:
        """Pairs that no gradient goes through."""
        late = self._late()
        if self.mask is None or not self.mask.dtype.is_bool:
            return late
        masked = self._masked(self.mask)
        return masked if late is None else self.b.or_(late, masked)

    def passed(self, x: Node) -> Node:
        """Cotangents of scores, zero where they were replaced."""
        return x if self.cut is None else self.b.select(self.cut, self.zeros(), x)


def _sum(b: Builder, *terms: Node | None) -> Node | None:
    total: Node | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else b.add(total, term)
    return total


def _attention_vjp(b: Builder, node: Node, gs: tuple[Node | None, Node | None], q: Node, k: Node, v: Node,
                   *mask: Node) -> list[Node | None]:
    g, g_lse = gs
    out, lse = b.results(node)
    found: list[Node | None] = [None, None, None]
    if g is not None:
        grad = Node.make("attention_grad", (q, k, v, out, lse, g, *mask), tuple(node.attrs), b.place)
        found = list(b.results(grad))
    learnt = [m.dtype.is_float for m in mask]
    if g_lse is None and not any(learnt):
        return [*found, *(None for _ in mask)]
    p = _Parts(b, node, q, k, v, lse, mask[0] if mask else None)
    slopes: Node | None = None
    if g_lse is not None:
        slopes = p.passed(b.mul(p.powers, p.spread(g_lse)))
        scaled = p.scaled(slopes)
        extra = p.product(scaled, p.k, (1, 0)), p.product(scaled, p.q, (0, 0))
        found[:2] = [_sum(b, f, p.narrowed(x)) for f, x in zip(found[:2], extra, strict=True)]
    if not any(learnt):
        return [*found, *(None for _ in mask)]
    if g is not None:
        wide_g = p.widened(g)
        delta = p.total(b.mul(wide_g, p.widened(out)))
        through = b.mul(p.powers, b.sub(p.product(wide_g, p.v, (1, 1)), p.spread(delta)))
        slopes = _sum(b, slopes, p.passed(through))
    assert slopes is not None
    return [*found, slopes if mask[0].dtype is slopes.dtype else b.cast(slopes, dtype=mask[0].dtype)]


def _attention_grad_vjp(b: Builder, node: Node, gs: tuple[Node | None, ...], q: Node, k: Node, v: Node, out: Node,
                        lse: Node, g: Node, *mask: Node) -> list[Node | None]:
    """By hand, from the kernel's formulas: P = exp(s − lse), R = P∘(g·vᵀ − δ), δ = rowsum(g∘out), dq = scale·R·k,
    dk = scale·Rᵀ·q, dv = Pᵀ·g."""
    p = _Parts(b, node, q, k, v, lse, mask[0] if mask else None)
    g_q, g_k, g_v = (None if x is None else p.widened(x) for x in gs)
    wide_g, wide_out = p.widened(g), p.widened(out)
    inner = b.sub(p.product(wide_g, p.v, (1, 1)), p.spread(p.total(b.mul(wide_g, wide_out))))
    slopes = p.scaled(p.passed(b.mul(p.powers, inner)))  # dS
    d_slopes = _sum(b, None if g_q is None else p.product(g_q, p.k, (1, 1)),
                    None if g_k is None else p.product(p.q, g_k, (1, 1)))
    d_q = None if g_k is None else p.product(slopes, g_k, (1, 0))
    d_k = None if g_q is None else p.product(slopes, g_q, (0, 0))
    d_g = None if g_v is None else p.product(p.powers, g_v, (1, 0))
    d_powers = None if g_v is None else p.product(wide_g, g_v, (1, 1))
    d_v: Node | None = None
    d_out: Node | None = None
    if d_slopes is not None:
        d_inner = p.passed(p.scaled(d_slopes))
        d_powers = _sum(b, d_powers, b.mul(d_inner, inner))
        d_product = b.mul(d_inner, p.powers)
        d_delta = b.expand(b.neg(p.total(d_product)), g.shape, (len(g.shape) - 1,))
        d_g = _sum(b, d_g, p.product(d_product, p.v, (1, 0)), b.mul(d_delta, wide_out))
        d_v = p.product(d_product, wide_g, (0, 0))
        d_out = b.mul(d_delta, wide_g)
    assert d_powers is not None
    d_scores = b.mul(d_powers, p.powers)
    d_lse = b.neg(p.total(d_scores))
    d_scores = p.passed(d_scores)
    scaled = p.scaled(d_scores)
    d_q = _sum(b, d_q, p.product(scaled, p.k, (1, 0)))
    d_k = _sum(b, d_k, p.product(scaled, p.q, (0, 0)))
    found = [None if x is None else p.narrowed(x) for x in (d_q, d_k, d_v, d_out)]
    masks = [None if m.dtype.is_bool else d_scores if m.dtype is d_scores.dtype else b.cast(d_scores, dtype=m.dtype)
             for m in mask]
    return [*found, d_lse, None if d_g is None else p.narrowed(d_g), *masks]


# -- records ---------------------------------------------------------------------------------------------------------


def _sample(t: int, s: int, d: int, e: int, *batch: int, saved: bool = False, mask: str = "", **attrs: Any) -> Sample:
    """Operands of one attention; `saved` adds the result, the logarithms and the cotangent."""
    operands = [("*", (*batch, t, d)), ("*", (*batch, s, d)), ("*", (*batch, s, e))]
    if saved:
        operands += [("*", (*batch, t, e)), ("*", (*batch, t)), ("*", (*batch, t, e))]
    if mask:
        operands.append((mask, (*batch, t, s)))
    return Sample(tuple(operands), {"scale": 0.5, **attrs}, low=-1.0, high=1.0)


def _samples(saved: bool) -> tuple[Sample, ...]:
    return (
        _sample(3, 4, 2, 5, 2, saved=saved),
        _sample(5, 5, 3, 3, saved=saved, causal=True),
        _sample(2, 4, 2, 2, 2, 1, saved=saved, causal=True, diagonal=2),
        _sample(3, 3, 2, 1, saved=saved, mask="*"),
        _sample(3, 3, 2, 2, saved=saved, mask="bool", hidden=-2.0, visible=False),
    )


def _bad(saved: bool) -> tuple[Sample, ...]:
    return (
        _sample(3, 4, 2, 5, 2, saved=saved, mask="i32"),
        Sample((("f32", (2, 3)), ("f32", (4, 2)), ("f32", (4, 2)), *((("f32", (2, 2)),) * 3 if saved else ())),
               {"scale": 1.0}),
        Sample((("f32", (2, 3)), ("f32", (4, 3)), ("f64", (4, 2)), *((("f32", (2, 2)),) * 3 if saved else ())),
               {"scale": 1.0}),
    )


register(
    OpDef(
        "attention",
        None,
        _infer_attention,
        quiet(_attention),
        Kind.OPAQUE,
        _ATTRS,
        vjp=_attention_vjp,
        family="contraction",
        doc="softmax(scores)·v and log Σ exp(scores) of every row, for q [*batch, T, D], k [*batch, S, D], "
        "v [*batch, S, E]. " + _MASK_DOC + " Made by the pass `attention`; the scores are never in memory.",
        samples=_samples(saved=False),
        bad=_bad(saved=False),
    )
)

register(
    OpDef(
        "attention_grad",
        None,
        _infer_grad,
        quiet(_attention_grad),
        Kind.OPAQUE,
        _ATTRS,
        vjp=_attention_grad_vjp,
        family="contraction",
        doc="Cotangents of q, k, v, given those operands of `attention`, its two results and the first one's cotangent "
        "(and the mask).",
        samples=_samples(saved=True),
        bad=_bad(saved=True),
    )
)
