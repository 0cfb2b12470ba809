"""Phases: named stations on the way from a traced graph to a fused one, each with its passes and a legality check.

    traced → differentiated → optimizer → replicated → simplified → fused → planned → kernels

The last two are no graph transformations: `emit` makes a plan of the fused graph, the kernel store compiles its kernels.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.errors import InternalError, TracemillError
from ..ir.graph import Graph
from .passes import format_pass
from .passes.autodiff import Autodiff
from .passes.base import Pass
from .passes.optimizer import Optimizer
from .passes.replicate import Replicate
from .passes.simplify import Simplify

PHASES = ("traced", "differentiated", "optimizer", "replicated", "simplified", "fused", "planned", "kernels")

# called after every pass with its number, the pass, the graph and the seconds it took
Callback = Callable[[int, Pass, Graph, float], None]


def passes_of(phase: str, fuse: bool = True) -> list[Pass]:
    """The passes that lead from the phase before to `phase`."""
    match phase:
        case "differentiated":
            return [Autodiff()]
        case "optimizer":
            return [Optimizer()]
        case "replicated":
            return [Replicate()]
        case "simplified":
            return [Simplify()]
        case "fused" if fuse:
            from .fusion import Fuse

            return [Fuse()]
    return []


def illegal(graph: Graph, phase: str) -> str | None:
    """What must not stand in a graph at `phase` but does, or None."""
    at = PHASES.index(phase)
    for node in graph.nodes:
        if node.op.name == "gradient" and at >= PHASES.index("differentiated"):
            return "a gradient node is left"
        if node.op.name == "update" and at >= PHASES.index("optimizer"):
            return "an update node is left"
        if node.op.name == "with_value" and at >= PHASES.index("simplified"):
            return "a with_value node is left"
        if node.op.name == "fused" and at < PHASES.index("fused"):
            return "a fused node stands in a graph that is not fused yet"
    return None


@dataclass
class PassManager:
    """Runs passes one by one.

    Attributes:
        callback: told of every pass (verify, time, dump); one for all purposes.
        reproducers: folder for reproducers of failing passes; by default the system's temporary folder.
    """

    callback: Callback | None = None
    reproducers: Path | None = None
    count: int = field(default=0, init=False)

    def run(self, graph: Graph, passes: Sequence[Pass]) -> Graph:
        """The graph after all passes.

        Raises:
            TracemillError: the user's mistake, at the user's line.
            InternalError: a pass failed; the message names a reproducer.
        """
        for p in passes:
            started = time.perf_counter()
            try:
                after = p.run(graph)
            except InternalError as error:
                raise self._reproduce(graph, p, error) from error
            except TracemillError:
                raise
            except Exception as error:
                raise self._reproduce(graph, p, error) from error
            graph = after
            self.count += 1
            if self.callback is not None:
                self.callback(self.count, p, graph, time.perf_counter() - started)
        return graph

    def _reproduce(self, graph: Graph, p: Pass, error: Exception) -> InternalError:
        """Write the IR before the failing pass and say how to run it again."""
        try:
            folder = self.reproducers or Path(tempfile.gettempdir())
            handle, name = tempfile.mkstemp(".ir", f"tracemill-{p.name}-", folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(str(graph))
            hint = f'report it with the reproducer: tracemill opt {name} --passes "{format_pass(p)}"'
        except OSError:
            hint = "no reproducer could be written"
        return InternalError(f"pass {p.name} failed: {type(error).__name__}: {error}", hint=hint)


def run_phases(graph: Graph, until: str = "fused", *, after: str = "traced", fuse: bool = True,
               callback: Callback | None = None) -> Graph:
    """The graph at phase `until`.

    Args:
        after: the phase the graph is at.
        fuse: off leaves one kernel an operator.

    Raises:
        ValueError: no such phase; TracemillError, InternalError: as `PassManager.run`.
    """
    manager = PassManager(callback)
    for phase in PHASES[PHASES.index(after) + 1:PHASES.index(until) + 1]:
        graph = manager.run(graph, passes_of(phase, fuse))
        problem = illegal(graph, phase)
        if problem is not None:
            raise InternalError(f"illegal graph after phase {phase}: {problem}")
    return graph
