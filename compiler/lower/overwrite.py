"""Which results may be written over which inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...ir.dims import product
from .kernel_ir import Kernel, Load, Operand, Store


def overwritable(*kernels: Kernel) -> list[tuple[str, str]]:
    """Pairs (output, input) of operands that may share memory: when an element is written, the input's element at this
    place has been read, and is not read again.

    Args:
        kernels: launches of one group, in order; one waits for the one before.
    """
    inputs = {o.name: o for k in kernels for o in k.operands if not o.output}
    found = []
    for k, kernel in enumerate(kernels):
        needed = {o.name for later in kernels[k + 1:] for o in later.operands}
        found += list(_pairs(kernel, [o for o in inputs.values() if o.name not in needed]))
    return found


def _pairs(kernel: Kernel, sources: Sequence[Operand]) -> Iterator[tuple[str, str]]:
    """The pairs of what one launch writes."""
    for store in (i for i in kernel.body if isinstance(i, Store)):
        target = kernel.operand(store.operand)
        for source in sources:
            if (source.dtype is target.dtype and product(list(source.extents)) == product(list(target.extents))
                    and _read_before(kernel, source, store)):
                yield target.name, source.name


def _read_before(kernel: Kernel, source: Operand, store: Store) -> bool:
    """Whether all loads of an operand are at the store's own place, and none comes in a later pass."""
    loads = [i for i in kernel.body if isinstance(i, Load) and i.operand == source.name]
    if any(i.address != store.address or i.guard for i in loads):
        return False
    reduced = {a.name for a in kernel.reduced}
    last = max(kernel.stages.values(), default=0)
    full = bool(kernel.axes[store] & reduced)
    match kernel.template:
        case "map" | "dot" | "conv" | "fold":
            return True
        case "row":  # what belongs to a row is read once, before its first pass
            return not full or kernel.stages[store] == last
        case "column":  # what belongs to a column is read again in every loop over the columns
            after = any(kernel.axes[i] & reduced and kernel.stages[i] >= kernel.stages[store] for i in kernel.body)
            return kernel.stages[store] == last and (full or not after)
    return False
