"""Recognition of attention: softmax(q·kᵀ·scale + mask)·v, however it was written, becomes one operator.

It happens before differentiation, so that probabilities are no residual, and only where nothing else reads the scores
or probabilities. What is matched is the normal form of the simplification rules, so that transposed operands, scaling
by division, `keepdim` and the like need no patterns of their own; what is built refers to the graph's own nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from ...ir.build import Builder
from ...ir.dims import Dim
from ...ir.graph import Graph
from ...ir.node import Node, postorder
from .causal import diagonal_of
from .rewriting import depends_on, has_bodies, map_bodies, substitute
from .simplify import algebraic, canonical
from .simplify.folding import fold_rules
from .simplify.local import Local, joined
from .simplify.patterns import is_scalar_constant

# A causal mask that fills with less than this hides as -inf does: no score comes near it.
_HIDDEN = -1e30


@dataclass(frozen=True)
class Attention:
    """Attentions in the graph and in the bodies of its control flow become `attention` nodes."""

    name: ClassVar[str] = "attention"

    def run(self, graph: Graph) -> Graph:
        roots = [n for n in graph.nodes if _may_be_root(n)]
        found = _Search(graph, roots).run() if roots else {}
        bodies = [n for n in graph.nodes if has_bodies(n)]
        return graph.with_outputs(self._rebuilt(graph, found)) if found or bodies else graph

    def _rebuilt(self, graph: Graph, found: dict[Node, Node]) -> list[Node]:
        mapped: dict[Node, Node] = {}
        for node in graph.nodes:
            inputs = tuple(mapped[i] for i in node.inputs)
            if node in found:
                mapped[node] = substitute([found[node]], mapped)[0]
            elif has_bodies(node):
                mapped[node] = map_bodies(node, inputs, self.run)
            else:
                mapped[node] = node.with_inputs(inputs)
        return [mapped[o] for o in graph.outputs]


def _may_be_root(node: Node) -> bool:
    """A quick test: a product one of whose factors is a quotient or a product itself."""
    return node.op.name == "dot" and node.dtype.is_float and any(_peeled(x).op.name in ("div", "mul")
                                                                 for x in node.inputs)


def _peeled(node: Node, through: Iterable[str] = ("cast", "permute", "reshape", "broadcast", "stop_gradient")) -> Node:
    while node.op.name in through:
        node = node.inputs[0]
    return node


@dataclass
class _Scores:
    """What precedes a softmax: a product, scaled and masked.

    Attributes:
        causal: how far right of its own column a row sees, for masks that say so.
        mask: a mask of other pairs (normal form); `hides` is the value of a boolean one that hides a pair.
    """

    product: Node
    scale: float = 1.0
    causal: Dim | None = None
    mask: Node | None = None
    hides: bool = True
    hidden: float = -math.inf


class _Search:
    def __init__(self, graph: Graph, roots: list[Node]) -> None:
        self.graph, self.roots = graph, roots
        # Numbers are folded, arrays are not: what is causal shows in how a mask is made.
        local = Local(joined(fold_rules(1), canonical.RULES, algebraic.RULES))
        self.forms = {n: local.form(n) for n in postorder(roots)}
        self.originals: dict[Node, Node] = {}
        for node, form in self.forms.items():
            self.originals.setdefault(form, node)
        self.required = frozenset(graph.outputs)

    def run(self) -> dict[Node, Node]:
        """The products with v that end an attention, and what replaces each."""
        found = {}
        for root in self.roots:
            new = self._attention(root)
            if new is not None:
                found[root] = new
        return found

    # -- one attention --------------------------------------------------------------------------------------------

    def _attention(self, root: Node) -> Node | None:
        form = self.forms[root]
        if form.op.name != "dot":
            return None
        for side in (0, 1):
            softmax = _softmax(_peeled(form.inputs[side], ("cast",)))
            if softmax is None:
                continue
            logits, axis = softmax
            scores = _scores(logits, axis)
            if scores is not None:
                return self._built(root, form, side, axis, scores)
        return None

    def _built(self, root: Node, form: Node, side: int, axis: int, scores: _Scores) -> Node | None:
        """The attention of matched parts, if their axes fit and nothing else reads what lies between."""
        b, product = Builder(root.place), scores.product
        n = len(product.shape) - 2
        roles = _roles(product, axis)
        values = _values(form, side, axis, n)
        if roles is None or values is None:
            return None
        (q, q_order), (k, k_order) = roles
        v, v_order, out_order = values
        q, q_scale = _unscaled(q)
        k, k_scale = _unscaled(k)
        parts = [q, k, v] + ([] if scores.mask is None else [scores.mask])
        if any(p not in self.originals for p in parts) or not self._private(root, set(parts)):
            return None
        if scores.mask is not None and scores.mask.dtype.is_float and self._learnt(self.originals[scores.mask]):
            return None
        orders = [q_order, k_order, v_order, (*range(n), n, n + 1) if axis == n + 1 else (*range(n), n + 1, n)]
        operands = [_permuted(b, self.originals[p], order) for p, order in zip(parts, orders, strict=False)]
        operands[:3] = [x if x.dtype is root.dtype else b.cast(x, dtype=root.dtype) for x in operands[:3]]
        if scores.mask is None:
            operands = _apart(operands)
        causal = scores.causal
        node = b.attention(*operands, scale=scores.scale * q_scale * k_scale, causal=causal is not None,
                           diagonal=0 if causal is None else causal, visible=not scores.hides, hidden=scores.hidden)
        result = b.result(node, index=0)
        lead = product.shape[:n]
        if result.shape[:-2] != lead:
            result = b.reshape(result, shape=(*lead, *result.shape[-2:]))
        return _permuted(b, result, out_order)

    def _private(self, root: Node, parts: set[Node]) -> bool:
        """Whether nothing but the attention reads its scores and probabilities."""
        cone = postorder(root.inputs, skip=lambda n: self.forms[n] in parts)
        scores = [n for n in cone if n.op.name == "dot"]
        inside = depends_on(cone, scores, lambda n: self.forms[n] not in parts)
        return not (self.required & inside) and all(
            u in inside or u is root for n in inside for u in self.graph.users[n])

    def _learnt(self, mask: Node) -> bool:
        """Whether a gradient is wanted of a mask that is added."""
        wanted = [x for n in self.graph.nodes if n.op.name == "gradient" for x in n.inputs[2 * n.attrs.n_outputs:]]
        return mask in depends_on([mask], wanted, lambda n: True)


# -- matching normal forms -------------------------------------------------------------------------------------------


def _softmax(node: Node) -> tuple[Node, int] | None:
    """The logits and the axis of a softmax."""
    if node.op.name not in ("div", "mul"):
        return None
    powers, total = node.inputs
    if node.op.name == "mul":
        if powers.op.name == "broadcast":
            powers, total = total, powers
        inner = _peeled(total, ("broadcast",))
        if inner.op.name != "reciprocal":
            return None
        total = _with_source(total, inner.inputs[0])
    axis = _row_value(total, "sum", powers)
    if axis is None or powers.op.name != "exp":
        return None
    shifted = powers.inputs[0]
    if shifted.op.name == "sub" and _is_row_maximum(shifted.inputs[1], shifted.inputs[0], axis):
        return shifted.inputs[0], axis
    return shifted, axis


def _is_row_maximum(node: Node, of: Node, axis: int) -> bool:
    """Whether `node` repeats each row's greatest element: by a reduction, or by looking up where it stands.

    What is taken off a row makes no difference to its softmax, so that it only has to be one value a row.
    """
    if _row_value(node, "max", of) == axis:
        return True
    inner = _peeled(node, ("broadcast", "reshape", "stop_gradient"))
    return (node.op.name == "broadcast" and axis not in node.attrs.dims and inner.op.name == "gather"
            and inner.inputs[0] is of and _peeled(inner.inputs[1], ("reshape",)).op.name == "argmax")


def _with_source(view: Node, source: Node) -> Node:
    """A broadcast of another operand of the same type."""
    return view.with_inputs((source,)) if view.op.name == "broadcast" else source


def _row_value(node: Node, reduction: str, of: Node) -> int | None:
    """The axis that `node` is a reduction of `of` over, repeated along it again."""
    inner = _peeled(node, ("broadcast", "stop_gradient"))
    if inner.op.name != reduction or inner.inputs[0] is not of or len(inner.attrs.axes) != 1:
        return None
    (axis,) = inner.attrs.axes
    kept = tuple(i for i in range(len(of.shape)) if i != axis)
    while node is not inner:
        if node.op.name == "broadcast" and (node.attrs.dims != kept or node.inputs[0].shape != inner.shape):
            return None
        node = node.inputs[0]
    return int(axis)


def _scores(node: Node, axis: int) -> _Scores | None:
    """What the logits consist of, from the softmax down to the product."""
    match node.op.name:
        case "dot":
            return _Scores(node)
        case "cast" if node.dtype.is_float and node.inputs[0].dtype.is_float:
            return _scores(node.inputs[0], axis)
        case "mul" | "div":
            x, c = node.inputs
            number = _number(c)
            inner = _scores(x, axis) if number is not None and number > 0 and math.isfinite(number) else None
            if inner is None or inner.mask is not None or inner.causal is not None:
                return None
            assert number is not None
            return replace(inner, scale=inner.scale * number if node.op.name == "mul" else inner.scale / number)
        case "select":
            return _selected(node, axis)
        case "add":
            return _added(node, axis)
        case _:
            return None


def _number(node: Node) -> float | None:
    """The value of a constant, or of one that is repeated."""
    node = _peeled(node, ("broadcast",))
    return float(node.attrs.value.array) if is_scalar_constant(node) else None


def _selected(node: Node, axis: int) -> _Scores | None:
    """Scores masked by a choice between them and a number."""
    condition, x, y = node.inputs
    hides = _number(x) is not None
    hidden, inner = _number(x if hides else y), _scores(y if hides else x, axis)
    return None if hidden is None or inner is None else _masked(inner, condition, hides, hidden, axis)


def _added(node: Node, axis: int) -> _Scores | None:
    """Scores with a mask added."""
    for x, mask in (node.inputs, node.inputs[::-1]):
        inner = _scores(x, axis)
        if inner is None or not mask.shape:
            continue
        choice = _peeled(mask, ("cast", "broadcast"))
        if choice.op.name == "select" and set(map(_number, choice.inputs[1:])) == {0.0, -math.inf}:
            hides, condition = _number(choice.inputs[1]) == -math.inf, _spread_like(choice.inputs[0], mask)
            found = _masked(inner, condition, hides, -math.inf, axis)
            if found is not None and (found.mask is None or condition is choice.inputs[0]):
                return found
        return None if inner.mask is not None else replace(inner, mask=mask, hides=False)
    return None


def _spread_like(node: Node, mask: Node) -> Node:
    """What a mask is made of, repeated as it is."""
    mask = _peeled(mask, ("cast",))
    if mask.op.name != "broadcast":
        return node
    return Builder(node.place).broadcast(node, shape=mask.shape, dims=mask.attrs.dims)


def _masked(inner: _Scores, condition: Node, hides: bool, hidden: float, axis: int) -> _Scores | None:
    """Scores of which a condition hides some."""
    n = len(inner.product.shape) - 2
    row = n if axis == n + 1 else n + 1
    diagonal = diagonal_of(condition, row, axis, hides)
    if diagonal is not None and inner.causal is None and (
            hidden == -math.inf or (hidden < _HIDDEN and isinstance(diagonal, int) and diagonal >= 0)):
        return replace(inner, causal=diagonal)
    if inner.mask is not None or not condition.shape:
        return None
    return replace(inner, mask=condition, hides=hides, hidden=hidden)


# -- axes ------------------------------------------------------------------------------------------------------------


def _roles(product: Node, axis: int) -> tuple[tuple[Node, tuple[int, ...]], tuple[Node, tuple[int, ...]]] | None:
    """Queries and keys with the orders of their axes that make them [batch, rows, features]."""
    at, found = product.attrs, []
    for x, batch, contract in zip(product.inputs, (at.batch_a, at.batch_b), (at.contract_a, at.contract_b),
                                  strict=True):
        free = [i for i in range(len(x.shape)) if i not in batch + contract]
        if len(free) != 1 or len(contract) != 1:
            return None
        found.append((x, (*batch, *free, *contract)))
    n = len(product.shape) - 2
    if axis not in (n, n + 1):
        return None
    return (found[0], found[1]) if axis == n + 1 else (found[1], found[0])


def _values(form: Node, side: int, axis: int, n: int) -> tuple[Node, tuple[int, ...], tuple[int, ...]] | None:
    """v with the order of its axes that makes it [batch, keys, features], and the order of the attention's axes that
    makes the product."""
    at = form.attrs
    batches, contracts = (at.batch_a, at.batch_b), (at.contract_a, at.contract_b)
    v, v_batch, v_contract = form.inputs[1 - side], batches[1 - side], contracts[1 - side]
    free = [i for i in range(len(v.shape)) if i not in v_batch + v_contract]
    if contracts[side] != (axis,) or sorted(batches[side]) != list(range(n)) or len(free) != 1:
        return None
    order = tuple(v_batch[batches[side].index(i)] for i in range(n))
    ends = (n, n + 1) if side == 0 else (n + 1, n)
    return v, (*order, *v_contract, *free), (*batches[side], *ends)


def _apart(operands: list[Node]) -> list[Node]:
    """Operands whose batch axes were merged for a batched product (`[b, h, t, d]` as `[b·h, t, d]`), apart again:
    heads that do not lie behind one another in memory have no stride as one axis."""
    while all(x.op.name == "reshape" for x in operands):
        inner = [x.inputs[0] for x in operands]
        leads = {x.shape[:-2] for x in inner}
        if len(leads) != 1 or any(x.shape[-2:] != y.shape[-2:] for x, y in zip(inner, operands, strict=True)):
            break
        operands = inner
    return operands


def _unscaled(node: Node) -> tuple[Node, float]:
    """An operand without constant factors, and their product."""
    scale = 1.0
    while node.op.name in ("mul", "div"):
        number = _number(node.inputs[1])
        if number is None or number <= 0 or not math.isfinite(number):
            break
        scale = scale * number if node.op.name == "mul" else scale / number
        node = node.inputs[0]
    return node, scale


def _permuted(b: Builder, node: Node, order: tuple[int, ...]) -> Node:
    return node if order == tuple(range(len(order))) else b.permute(node, dims=order)
