"""Phases: the stations of a graph, the passes that lead into each, what each makes illegal, and the manager
that runs them.

    traced → differentiated → optimizer → replicated → simplified → fused → planned → kernels

The last two transform no graph: `emit` makes a plan of the fused graph, the kernel store compiles its
kernels.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import InternalError, TracemillError, VerifyError
from ..ir.graph import Graph, all_nodes
from ..ir.verify import verify
from .passes import Pass, format_pass
from .passes.attention import Attention
from .passes.autodiff import SYMBOLS, Autodiff
from .passes.layout import Layout
from .passes.optimizer import Optimizer
from .passes.replicate import Replicate
from .passes.simplify import Simplify
from .passes.windows import Windows

PHASES = ("traced", "differentiated", "optimizer", "replicated", "simplified", "fused", "planned", "kernels")
GRAPH_PHASES = PHASES[:PHASES.index("planned")]


def passes_of(phase: str, *, fuse: bool = True, sizes: Mapping[str, int] | None = None) -> tuple[Pass, ...]:
    """The passes that lead from the phase before to `phase`.

    Args:
        fuse: form groups; off leaves every operator a kernel of its own.
        sizes: typical values of named sizes, to compare bytes at.
    """
    match phase:
        case "differentiated":
            return (Attention(), Autodiff())
        case "optimizer":
            return (Optimizer(),)
        case "replicated":
            return (Replicate(),)
        case "simplified":
            return (Simplify(), Layout(), Windows())
        case "fused" if fuse:
            from .fusion import Fuse

            return (Fuse(sizes=",".join(f"{name}={value}" for name, value in (sizes or {}).items())),)
        case _:
            return ()


# -- legality ------------------------------------------------------------------------------------------------

_SYMBOLIC = frozenset({*SYMBOLS, "update"})

# Operators that must not occur any more (or not yet) in a phase.
ILLEGAL: Mapping[str, frozenset[str]] = {
    "traced": frozenset({"fused"}),
    "differentiated": frozenset({*SYMBOLS, "fused"}),
    "optimizer": frozenset({*_SYMBOLIC, "fused"}),
    "replicated": frozenset({*_SYMBOLIC, "fused"}),
    "simplified": frozenset({*_SYMBOLIC, "fused"}),
    "fused": _SYMBOLIC,
}


def check_legal(graph: Graph, phase: str) -> None:
    """Raises VerifyError, at its place, for an operator that must not occur in `phase`."""
    illegal = ILLEGAL[phase]
    for node in all_nodes(graph):
        if node.op.name in illegal:
            raise VerifyError(f"{node.op.name} is illegal in phase {phase}", location=node.place.location)


# -- callbacks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PassEvent:
    """One pass has run.

    Attributes:
        index: number of the pass in this run, from 1.
        phase: the phase it leads into, or "" outside of phases.
        seconds: its wall time.
    """

    index: int
    phase: str
    step: Pass
    before: Graph
    after: Graph
    seconds: float


Callback = Callable[[PassEvent], None]


def verifying(event: PassEvent) -> None:
    """Callback: verify the graph after every pass, and that its signature is still the same."""
    verify(event.after)
    before, after = event.before, event.after
    if before.inputs != after.inputs or before.donations != after.donations:
        raise VerifyError(f"{event.step.name} changed the inputs or donations of graph {before.name}")
    if [o.type for o in before.outputs] != [o.type for o in after.outputs]:
        raise VerifyError(f"{event.step.name} changed an output's type in graph {before.name}")
    if isinstance(event.step, Simplify) and not event.step.is_canonical(after):
        raise VerifyError(f"{event.step.name} stopped before the canonical form of graph {before.name}")


class Timing:
    """Callback: seconds per pass, in the order the passes first ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, event: PassEvent) -> None:
        self.seconds[event.step.name] = self.seconds.get(event.step.name, 0.0) + event.seconds


class Dump:
    """Callback: write the graph before the first pass and after each as `003_fuse.ir`.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, event: PassEvent) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if event.index == 1:
            write_graph(event.before, self.folder / "000_input.ir")
        write_graph(event.after, self.folder / f"{event.index:03d}_{event.step.name}.ir")


def chain(*callbacks: Callback | None) -> Callback:
    """One callback that calls several."""
    present = [c for c in callbacks if c is not None]

    def call(event: PassEvent) -> None:
        for callback in present:
            callback(event)

    return call


def write_graph(graph: Graph, path: Path, header: str = "") -> None:
    """Write a graph's text, and its large constants to `path` with the suffix .safetensors."""
    from ..ir.text import print_graph

    constants: dict[str, np.ndarray[Any, Any]] = {}
    text = header + print_graph(graph, constants=constants, places=True)
    path.write_text(text, encoding="utf-8")
    if constants:
        from ..ir.arrays import write_arrays

        write_arrays(str(path.with_suffix(".safetensors")), {f"@{k}": v for k, v in constants.items()})


# -- the manager ---------------------------------------------------------------------------------------------


class PassManager:
    """Runs passes one by one.

    Args:
        callback: called after every pass (verification, timing, dumps).
        reproducers: folder for reproducers of failing passes; by default a new temporary one each.
    """

    def __init__(self, callback: Callback | None = None, reproducers: Path | None = None) -> None:
        self._callback = callback
        self._reproducers = reproducers
        self._count = 0

    def run(self, graph: Graph, passes: Sequence[Pass], phase: str = "") -> Graph:
        """The graph after all passes, in order.

        Args:
            phase: the phase they lead into; its legality is checked at the end.

        Raises:
            TracemillError: the graph asks for something that cannot be done; the user's line is in it.
            InternalError: a pass failed or broke the graph; names a reproducer.
        """
        for i, step in enumerate(passes):
            self._count += 1
            try:
                started = time.perf_counter()
                after = step.run(graph)
                seconds = time.perf_counter() - started
                if self._callback is not None:
                    self._callback(PassEvent(self._count, phase, step, graph, after, seconds))
                if phase and i == len(passes) - 1:
                    check_legal(after, phase)
            except Exception as error:
                if isinstance(error, TracemillError) and not isinstance(error, (InternalError, VerifyError)):
                    raise
                raise self._failure(graph, step, error) from error
            graph = after
        return graph

    def _failure(self, graph: Graph, step: Pass, error: Exception) -> InternalError:
        """Write the IR before the failing pass, and say how to run the pass on it again."""
        message = error.message if isinstance(error, TracemillError) else str(error)
        what = f"pass {step.name} failed on graph {graph.name!r}: {type(error).__name__}: {message}"
        try:
            folder = self._reproducers or Path(tempfile.mkdtemp(prefix="tracemill-reproducer-"))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{self._count:03d}_{step.name}_input.ir"
            command = f"tracemill opt {path} --passes '{format_pass(step)}'"
            header = "".join(f"# {line}\n" for line in (*what.splitlines(), f"run: {command}"))
            write_graph(graph, path, header)
        except Exception as problem:  # the failure itself matters more than its record
            return InternalError(what, hint=f"no reproducer could be written: {problem}")
        return InternalError(what, hint=f"please report it with {path}; to repeat it: {command}")


def phase_of(graph: Graph) -> str:
    """The phase a graph read from a file is to be taken for: fused groups are made once only."""
    return "fused" if any(n.op.name == "fused" for n in graph.nodes) else "traced"


def run_phases(graph: Graph, until: str = "fused", *, after: str | None = None, fuse: bool = True,
               callback: Callback | None = None, sizes: Mapping[str, int] | None = None) -> Graph:
    """The graph at phase `until`.

    Args:
        until: a phase of graphs: one before `planned`.
        after: the phase the graph is at; by default what it looks like.
        fuse, sizes: see `passes_of`.

    Raises:
        ValueError: no such phase.
        TracemillError, InternalError: see `PassManager.run`.
    """
    manager = PassManager(callback)
    after = after or phase_of(graph)
    for phase in GRAPH_PHASES[GRAPH_PHASES.index(after) + 1:GRAPH_PHASES.index(until) + 1]:
        graph = manager.run(graph, passes_of(phase, fuse=fuse, sizes=sizes), phase)
    return graph
