"""Last step: kernels that do the same to different tensors become one.

The parameters that an optimizer updates alike, in kernels of their own, become segments of one kernel, and so do the
single values that belong to each parameter (step counters, bias corrections).
"""

from __future__ import annotations

from ...ir.node import Node
from ..lower.emit_update import is_segment, segment_text
from ..lower.errors import CannotLower
from ..lower.group import build
from .clusters import Clusters, Group, current
from .merge import Merger, is_scalar


def merge_scalars(clusters: Clusters, merger: Merger) -> None:
    """Single values that follow from the same state become one group."""
    donated = {clusters.graph.input_node(d) for d in clusters.graph.donations if d is not None}
    readers: dict[Node, Group] = {}
    for group in filter(is_scalar, filter(clusters.is_open, clusters.groups())):
        for leaf in clusters.leaves(group):
            if leaf in donated:
                first = readers.setdefault(leaf, group)
                if current(first) is not current(group):
                    merger.merge_unrelated(current(first), current(group))


def merge_updates(clusters: Clusters) -> None:
    """Groups of one text that nothing can come between become segments of one group."""
    donated = {o for o, d in zip(clusters.graph.outputs, clusters.graph.donations, strict=True) if d is not None}
    alike: dict[str, list[Group]] = {}
    for group in filter(clusters.is_open, clusters.groups()):
        if group.core is None and not group.reductions and (
                _starts(clusters, group) if is_scalar(group) else _ends(clusters, group, donated)):
            text = _text(clusters, group)
            if text is not None:
                alike.setdefault(text, []).append(group)
    for groups in alike.values():
        if len(groups) > 1:
            _join(clusters, groups)


def _join(clusters: Clusters, groups: list[Group]) -> None:
    merged = Group(segments=tuple(groups))
    for group in groups:
        group.replaced = merged
        merged.outputs |= group.outputs
        for n in group.members:
            clusters.own(n, merged)


def _starts(clusters: Clusters, group: Group) -> bool:
    """Whether a group reads nothing that is computed."""
    return all(n.op.name in ("input", "constant") for n in clusters.leaves(group))


def _ends(clusters: Clusters, group: Group, donated: set[Node]) -> bool:
    """Whether a group only replaces inputs: nothing else reads what it computes."""
    return all(o in donated and all(u in group.members for u in clusters.graph.users[o]) for o in group.outputs)


def _text(clusters: Clusters, group: Group) -> str | None:
    body, leaves = clusters.body(group)
    try:
        built = build(body, range(len(leaves)))
    except CannotLower:
        return None
    return segment_text(built) if is_segment(built) else None
