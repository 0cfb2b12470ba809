"""The fusion pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.graph import Graph
from ...ir.node import Node
from .absorb import absorb
from .clusters import Clusters
from .inline import inlinable
from .merge import Merger
from .peak import Liveness, peak_bytes
from .rebuild import rebuild
from .update import merge_scalars, merge_updates

# What named sizes are taken to be when bytes are compared.
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
    """

    max_nodes: int = 64

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        if self.max_nodes < 2:
            return graph
        sizes = dict.fromkeys(graph.size_names, _TYPICAL) | dict(graph.sizes)
        limit = peak_bytes(graph, sizes)
        inlined = inlinable(absorb(graph, (), (), self.max_nodes))
        alone: set[Node] = set()
        for _ in range(_ROUNDS):
            fused, groups = rebuild(self._clusters(graph, inlined, alone), self.run)
            liveness = Liveness(fused, sizes)
            if liveness.peak <= limit:
                return fused
            # First no value is computed twice, then the groups go that wait for what lies in memory at the peak.
            late = [n for launch in liveness.waiting() if launch in groups for n in groups[launch].members]
            if not inlined and alone.issuperset(late):
                break
            alone.update(late if not inlined else ())
            inlined = set()
        return graph

    def _clusters(self, graph: Graph, inlined: set[Node], alone: set[Node]) -> Clusters:
        clusters = absorb(graph, inlined, alone, self.max_nodes)
        merger = Merger(clusters, self.max_nodes)
        merger.run()
        merge_scalars(clusters, merger)
        merge_updates(clusters)
        return clusters
