"""Which results may be written over which inputs."""

from __future__ import annotations

from ...ir.dims import product
from .kernel_ir import Kernel, Load, Operand, Store


def overwritable(kernel: Kernel) -> list[tuple[str, str]]:
    """Pairs (output, input) of operands that may share memory: the input's elements are read at the very places that
    are written, and not after that."""
    pairs = []
    for store in (i for i in kernel.body if isinstance(i, Store)):
        target = kernel.operand(store.operand)
        for source in (o for o in kernel.operands if not o.output):
            if (source.dtype is target.dtype and product(list(source.extents)) == product(list(target.extents))
                    and _read_before(kernel, source, store)):
                pairs.append((target.name, source.name))
    return pairs


def _read_before(kernel: Kernel, source: Operand, store: Store) -> bool:
    """Whether all loads of an operand are at the store's own place, and none comes in a later pass."""
    loads = [i for i in kernel.body if isinstance(i, Load) and i.operand == source.name]
    if any(i.address != store.address or i.guard for i in loads):
        return False
    reduced = {a.name for a in kernel.reduced}
    last = max(kernel.stages.values(), default=0)
    full = bool(kernel.axes[store] & reduced)
    match kernel.template:
        case "map" | "dot" | "conv":
            return True
        case "row":  # what belongs to a row is read once, before its first pass
            return not full or kernel.stages[store] == last
        case "column":  # what belongs to a column is read again in every loop over the columns
            after = any(kernel.axes[i] & reduced and kernel.stages[i] >= kernel.stages[store] for i in kernel.body)
            return kernel.stages[store] == last and (full or not after)
    return False
