"""Permutes next to `dot`: its attributes name axes, so operands need not be moved first.

Exact: the products of one output element are summed in the order of the contracted axes as listed, which
    stays.
"""

from __future__ import annotations

from ....ir.build import Builder
from ....ir.node import Node
from .local import Rules


def _free(x: Node, contract: tuple[int, ...], batch: tuple[int, ...]) -> list[int]:
    return [i for i in range(len(x.shape)) if i not in contract and i not in batch]


def permuted_operand(b: Builder, n: Node) -> Node | None:
    """dot(permute(x), y) → dot(x, y) with x's own axis numbers, if x's free axes keep their order."""
    a = n.attrs
    sides = [(n.inputs[0], a.contract_a, a.batch_a), (n.inputs[1], a.contract_b, a.batch_b)]
    changed = False
    for i, (x, contract, batch) in enumerate(sides):
        if x.op.name != "permute":
            continue
        axes = x.attrs.dims
        free = [axes[f] for f in _free(x, contract, batch)]
        if free == sorted(free):
            sides[i] = (x.inputs[0], tuple(axes[c] for c in contract), tuple(axes[c] for c in batch))
            changed = True
    if not changed:
        return None
    (x, contract_a, batch_a), (y, contract_b, batch_b) = sides
    return b.dot(x, y, contract_a=contract_a, contract_b=contract_b,
                 batch_a=batch_a, batch_b=batch_b)


def swapped_result(b: Builder, n: Node) -> Node | None:
    """permute(dot(x, y)) → dot(y, x), where the permute puts y's free axes before x's."""
    d, = n.inputs
    if d.op.name != "dot":
        return None
    a = d.attrs
    x, y = d.inputs
    batch, free_x = len(a.batch_a), len(_free(x, a.contract_a, a.batch_a))
    rank = len(d.shape)
    order = (*range(batch), *range(batch + free_x, rank), *range(batch, batch + free_x))
    if n.attrs.dims != order:
        return None
    return b.dot(y, x, contract_a=a.contract_b, contract_b=a.contract_a,
                 batch_a=a.batch_b, batch_b=a.batch_a)


CONTRACTION_RULES: Rules = {"dot": (permuted_operand,), "permute": (swapped_result,)}
