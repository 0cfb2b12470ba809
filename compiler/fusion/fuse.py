"""The fusion pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...ir.graph import Graph
from ...ir.node import Node
from ..lower.structure import Structure
from .absorb import absorb
from .attention import attention_groups
from .clusters import Clusters, Group
from .inline import inlinable
from .merge import Merger
from .peak import Liveness, least_bytes, peak_bytes
from .rebuild import rebuild
from .update import merge_scalars, merge_updates

# What a named size is taken to be when bytes are compared, if nobody says.
_TYPICAL = 64
# Attempts to get below the unfused graph's memory.
_ROUNDS = 12


@dataclass(frozen=True)
class Fuse:
    """Groups of operators that run as one kernel each, as `fused` nodes.

    Values that one group reads join it; cheap values that several read are computed by each; groups that read each
    other's results, or the same tensors, merge where a kernel template covers the union. Choices depend on the graph's
    structure, not on the numbers of its extents, and no fused graph needs more memory at once than the graph did:
    where one would, the groups behind it are taken apart.

    Attributes:
        max_nodes: most nodes of one group; 1 fuses nothing.
        sizes: values of named sizes to compare bytes at, as `B=128,T=64`.
    """

    max_nodes: int = 64
    sizes: str = ""

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        if self.max_nodes < 2:
            return graph
        graph = attention_groups(graph)
        sizes = dict.fromkeys(graph.size_names, _TYPICAL) | dict(graph.sizes) | self._given()
        least = least_bytes(graph, sizes)
        limit: int | None = None
        choices = _recomputed(absorb(graph, (), (), self.max_nodes))
        inlined = next(choices)
        alone: set[Node] = set()
        covered: dict[Structure, bool] = {}
        for _ in range(_ROUNDS):
            fused, groups = rebuild(self._clusters(graph, inlined, alone, covered), self.run)
            peak = peak_bytes(fused, sizes)
            if peak <= least:
                return fused
            limit = peak_bytes(graph, sizes) if limit is None else limit  # not often needed: it plans the graph
            if peak <= limit:
                return fused
            fewer = next((c for c in choices if c != inlined), None)
            if fewer is not None:
                inlined = fewer
                continue
            late = self._behind(Liveness(fused, sizes), groups) - alone
            if not late:
                break
            alone |= late
        return graph

    def _given(self) -> dict[str, int]:
        pairs = (item.split("=") for item in self.sizes.split(",") if item)
        return {name.strip(): int(value) for name, value in pairs}

    @staticmethod
    def _behind(liveness: Liveness, groups: Mapping[Node, Group]) -> set[Node]:
        """Members of the groups that the peak is due to: those that wait to read what lies in memory then, or else
        those that have put it there."""
        for launches in (liveness.waiting(), liveness.making()):
            found = {n for launch in launches if launch in groups for n in groups[launch].members}
            if found:
                return found
        return set()

    def _clusters(self, graph: Graph, inlined: set[Node], alone: set[Node],
                  covered: dict[Structure, bool]) -> Clusters:
        clusters = absorb(graph, inlined, alone, self.max_nodes)
        merger = Merger(clusters, self.max_nodes, covered)
        merger.run()
        merge_scalars(clusters, merger)
        merge_updates(clusters)
        return clusters


def _recomputed(clusters: Clusters) -> Iterator[set[Node]]:
    """Values for their readers to compute: as many as pay, then fewer, then none."""
    yield inlinable(clusters)
    yield inlinable(clusters, small=False)
    yield set()
