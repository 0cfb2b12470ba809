"""From what a failed kernel left in its status to the error that the user sees."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.errors import IndexRangeError, KernelError, Location, TracemillError
from .host import HostFault
from .plan import Host, KernelCall, Plan

CODE_INDEX = 1
CODE_SINGULAR = 2
CODE_VALUE = 3


class KernelIndexError(KernelError, IndexRangeError):
    """A running kernel met an index outside its dimension."""


_MESSAGES: dict[int, tuple[type[TracemillError], str]] = {
    CODE_INDEX: (KernelIndexError, "index {index} is out of range for a dimension of extent {extent}"),
    CODE_SINGULAR: (KernelError, "matrix {index} of {extent} is singular"),
    CODE_VALUE: (KernelError, "element {index} of {extent} has a value that is not allowed"),
}

Sites = Sequence[Location | None]


def _who(entry: KernelCall | Host, node: int, sites: Sites) -> tuple[str, Location | None]:
    """Operator and place of a node number within a call."""
    fallback = entry.kernel if isinstance(entry, KernelCall) else entry.name
    for fault in entry.faults:
        if fault.node == node:
            known = 0 <= fault.site < len(sites)
            return fault.operator, sites[fault.site] if known else None
    return entry.node or fallback, None


def kernel_error(plan: Plan, entry: int, status: Sequence[int], sites: Sites) -> TracemillError:
    """The error for a kernel that returned nonzero.

    Args:
        entry: number of the plan entry.
        status: code, node, index, extent.
    """
    code, node, index, extent = status
    call = plan.flat[entry][1]
    if not isinstance(call, KernelCall):
        return KernelError(f"entry {entry} of plan {plan.name} failed with code {code}")
    operator, location = _who(call, node, sites)
    kind, template = _MESSAGES.get(
        code, (KernelError, "failed with code {code} (index {index}, extent {extent})")
    )
    text = template.format(code=code, index=index, extent=extent)
    return kind(f"{operator}: {text}", location=location)


def host_error(call: Host, fault: HostFault, sites: Sites) -> TracemillError:
    """The error for a host function that met bad data."""
    operator, location = _who(call, fault.node, sites)
    return KernelError(f"{operator}: {fault.message}", location=location, hint=fault.hint)
