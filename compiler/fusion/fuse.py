"""The fusion pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ...ir.graph import Graph
from .absorb import absorb
from .clusters import Clusters
from .inline import inlinable
from .merge import Merger
from .peak import peak_bytes
from .rebuild import rebuild
from .update import merge_scalars, merge_updates

_TYPICAL = 64


@dataclass(frozen=True)
class Fuse:
    """Groups of operators that run as one kernel each, as `fused` nodes.

    Values that one group reads join it; cheap values that several read are computed by each; groups that read each
    other's results, or the same tensors, merge where a kernel template covers the union. Choices depend on the graph's
    structure, not on the numbers of its extents, and no fused graph needs more memory at once than the graph did: if
    one would, fewer groups are made.

    Attributes:
        max_nodes: most nodes of one group; 1 fuses nothing.
    """

    max_nodes: int = 64

    name: ClassVar[str] = "fuse"

    def run(self, graph: Graph) -> Graph:
        if self.max_nodes < 2:
            return graph
        sizes = {name: _TYPICAL for name in graph.size_names} | dict(graph.sizes)
        limit = peak_bytes(graph, sizes)
        for clusters in self._attempts(graph):
            fused = rebuild(clusters, self.run)
            if peak_bytes(fused, sizes) <= limit:
                return fused
        return graph

    def _attempts(self, graph: Graph) -> Iterator[Clusters]:
        """Clusterings, from the most to the least daring."""
        plain = absorb(graph, set(), self.max_nodes)
        inlined = inlinable(plain)
        if inlined:
            clusters = absorb(graph, inlined, self.max_nodes)
            yield self._merged(clusters)
            plain = absorb(graph, set(), self.max_nodes)
        yield self._merged(plain)
        yield absorb(graph, set(), self.max_nodes)

    def _merged(self, clusters: Clusters) -> Clusters:
        merger = Merger(clusters, self.max_nodes)
        merger.run()
        merge_scalars(clusters, merger)
        merge_updates(clusters)
        return clusters
