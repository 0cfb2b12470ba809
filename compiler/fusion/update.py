"""Last step: kernels that do the same to different tensors become one.

Single values (step counters, bias corrections) are computed together, and the parameters that an optimizer updates
alike, in kernels of their own, become segments of one kernel.
"""

from __future__ import annotations

from ..lower.emit_update import is_segment, segment_text
from ..lower.errors import CannotLower
from ..lower.group import build
from .clusters import Clusters, Group
from .merge import Merger
from .roles import Role


def merge_scalars(clusters: Clusters, merger: Merger) -> None:
    """Groups of single values become as few groups as their dependences allow."""
    pending: list[Group] = []
    for group in clusters.groups():
        if group.core is None and not group.reductions and not any(o.tensor_type.rank for o in group.outputs):
            for k, other in enumerate(pending):
                merged = merger.merge_unrelated(other, group)
                if merged is not None:
                    pending[k] = merged
                    break
            else:
                pending.append(group)


def merge_updates(clusters: Clusters) -> None:
    """Groups that only write donated outputs, by the same text, become segments of one group."""
    donated = {o for o, d in zip(clusters.graph.outputs, clusters.graph.donations, strict=True) if d is not None}
    alike: dict[str, list[Group]] = {}
    for group in clusters.groups():
        if group.core is None and not group.reductions and all(
                o in donated and o.tensor_type.rank and not _read(clusters, group, o) for o in group.outputs):
            text = _text(clusters, group)
            if text is not None:
                alike.setdefault(text, []).append(group)
    for groups in alike.values():
        if len(groups) > 1:
            merged = Group(segments=tuple(groups))
            for group in groups:
                group.replaced = merged
                merged.outputs |= group.outputs
                for n in group.members:
                    clusters.own(n, merged)


def _read(clusters: Clusters, group: Group, output: object) -> bool:
    """Whether anything outside the group reads a result."""
    return any(u not in group.members and not (clusters.roles[u] is Role.VIEW and not clusters.graph.users[u])
               for u in clusters.graph.users[output])  # type: ignore[index]


def _text(clusters: Clusters, group: Group) -> str | None:
    body, leaves = clusters.body(group)
    try:
        built = build(body, range(len(leaves)))
    except CannotLower:
        return None
    return segment_text(built) if is_segment(built) else None
