"""Distances, similarities and attention."""

from __future__ import annotations

import math
from typing import Any

from ....ir.build import Builder
from ....ir.dtypes import boolean, i64
from ....ir.errors import ShapeError
from ....ir.node import Node
from ..nodes import align, broadcast_shapes, cast, expand
from ..place import location
from ..tensor import Tensor
from ..trace import apply_mixed
from .activation_functions import softmax_node


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x1·x2 / (max(‖x1‖, eps)·max(‖x2‖, eps)) along a dimension."""
    n1 = x1.norm(2, dim, keepdim=True).clamp_min(eps)
    n2 = x2.norm(2, dim, keepdim=True).clamp_min(eps)
    return ((x1 / n1) * (x2 / n2)).sum(dim)  # type: ignore[no-any-return]


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x1 − x2 + eps‖_p along the last dimension."""
    return (x1 - x2 + eps).norm(p, -1, keepdim)  # type: ignore[no-any-return]


def _scores(b: Builder, q: Node, k: Node, scale: float) -> Node:
    """q·kᵀ·scale over the leading batch dimensions."""
    batch = tuple(range(len(q.shape) - 2))
    last = len(q.shape) - 1
    scores = b.dot(q, k, contract_a=(last,), contract_b=(last,), batch_a=batch, batch_b=batch)
    return b.mul(scores, b.like(scale, scores))


def _masked(b: Builder, scores: Node, mask: Node | None, causal: bool) -> Node:
    low = b.like(-math.inf, scores)
    if causal:
        rank = len(scores.shape)
        row = b.iota(shape=scores.shape, axis=rank - 2, dtype=i64)
        column = b.iota(shape=scores.shape, axis=rank - 1, dtype=i64)
        scores = b.select(b.le(column, row), scores, low)
    if mask is None:
        return scores
    if mask.dtype is boolean:
        return b.select(expand(b, mask, scores.shape), scores, low)
    scores, mask = align(b, scores, cast(b, mask, scores.dtype))
    return b.add(scores, mask)


def _weights(b: Builder, q: Node, k: Node, mask: Node | None, causal: bool, scale: float) -> Node:
    """softmax(q·kᵀ·scale + mask), over broadcast batch dimensions."""
    lead = broadcast_shapes(q.shape[:-2], k.shape[:-2])
    dtype = q.dtype
    q, k = (cast(b, expand(b, x, (*lead, *x.shape[-2:])), dtype.compute) for x in (q, k))
    return cast(b, softmax_node(b, _masked(b, _scores(b, q, k, scale), mask, causal), -1), dtype)


def _mix(b: Builder, weights: Node, v: Node) -> Node:
    lead = broadcast_shapes(weights.shape[:-2], v.shape[:-2])
    weights, v = (expand(b, x, (*lead, *x.shape[-2:])) for x in (weights, v))
    batch = tuple(range(len(lead)))
    n = len(lead)
    return b.dot(weights, v, contract_a=(n + 1,), contract_b=(n,), batch_a=batch, batch_b=batch)


def _attention(b: Builder, q: Node, k: Node, v: Node, mask: Node | None, causal: bool, scale: float) -> Node:
    return _mix(b, _weights(b, q, k, mask, causal, scale), v)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(q·kᵀ·scale + mask)·v for q [..., L, E], k [..., S, E], v [..., S, Ev].

    Args:
        attn_mask: bool (True takes part) or float (added), broadcast to [..., L, S].
        is_causal: row i sees columns up to i.
        scale: 1/√E unless given.
        enable_gqa: each key and value head (dimension −3) serves a group of query heads.
    """
    if query._shape[-1] != key._shape[-1] or key._shape[-2] != value._shape[-2]:
        raise ShapeError(f"scaled_dot_product_attention: query {list(query.shape)}, key {list(key.shape)} and value "
                         f"{list(value.shape)} do not fit", location=location(),
                         hint="query and key need one feature size, key and value one length")
    if is_causal and attn_mask is not None:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if enable_gqa:
        group = query._shape[-3] // key._shape[-3]
        key, value = key.repeat_interleave(group, -3), value.repeat_interleave(group, -3)
    args: tuple[Any, ...] = (bool(is_causal), 1 / math.sqrt(query._shape[-1]) if scale is None else float(scale))
    if not dropout_p:
        return apply_mixed(_attention, (query, key, value, attn_mask), args)  # type: ignore[no-any-return]
    from .dropout_functions import dropout

    weights = dropout(apply_mixed(_weights, (query, key, attn_mask), args), dropout_p)
    return apply_mixed(_mix, (weights, value))  # type: ignore[no-any-return]
