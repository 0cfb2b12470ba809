"""Simplification: canonical forms, constant folding, algebra, common subexpressions, dead code, loop invariants.

All of it keeps the bits of the result (the few exceptions say so where they are written), and none of it
looks at the size of a tensor: extents count only where they are equal as expressions or the number 1, and a
limit exists only for constants to fold. A graph for batches of 128 and the same graph for batches of B become
the same kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....ir.graph import Graph
from . import algebraic, canonical
from .algebraic import Algebraic
from .canonical import Canonicalize
from .cse import Cse
from .dce import Dce
from .folding import Fold, fold_rules
from .hoisting import Hoist
from .local import Local, joined
from .sinking import SinkReshapes


@dataclass(frozen=True)
class Simplify:
    """All simplifications in turn until nothing changes.

    Attributes:
        rounds: at most so many turns. Two are the rule: a second one finds what the first brought together.
        max_elements: see `Fold`.
    """

    rounds: int = 8
    max_elements: int = 4096

    name: ClassVar[str] = "simplify"

    def run(self, graph: Graph) -> Graph:
        local = self._local()
        for _ in range(self.rounds):
            before = graph.outputs
            for step in (local.run, Cse().run, SinkReshapes().run, Dce().run, Hoist().run):
                graph = step(graph)
            if graph.outputs == before:
                break
        return graph

    def _local(self) -> Local:
        # Folding first: what is constant needs no other form.
        return Local(joined(fold_rules(self.max_elements), canonical.RULES, algebraic.RULES))

    def is_canonical(self, graph: Graph) -> bool:
        """True if no local rule fits any more."""
        return self._local().run(graph) is graph


__all__ = ["Algebraic", "Canonicalize", "Cse", "Dce", "Fold", "Hoist", "Simplify", "SinkReshapes"]
