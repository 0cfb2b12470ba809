"""`tracemill dump`: every graph a script compiles, or one .ir file, at a phase and in a form."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ...ir.errors import TracemillError
from ...ir.graph import Graph
from ...ir.text import print_graph
from .graphs import load_graph, save_arrays
from .script import AS_TORCH, Enough, run_script

if TYPE_CHECKING:
    from ..emit import Emitted

Array = np.ndarray[Any, Any]
EMITS = ("ir", "kernel", "llvm", "asm", "dot")
PHASES = ("traced", "differentiated", "optimizer", "replicated", "simplified", "fused", "planned", "kernels")
_SUFFIX = {"kernel": ".kernel", "llvm": ".ll", "asm": ".s", "dot": ".dot"}


@click.command("dump")
@click.option("--phase", type=click.Choice(PHASES), default="optimizer", show_default=True, help="How far to compile.")
@click.option("--emit", type=click.Choice(EMITS), default="ir", show_default=True,
              help="What to show; kernel, llvm and asm are of phase kernels.")
@AS_TORCH
@click.option("--graphs", "limit", type=click.IntRange(1), metavar="N", help="Stop the script after N graphs.")
@click.option("--places", is_flag=True, help="Print source line and module scope of every node.")
@click.option("-o", "folder", metavar="DIR", help="Write NNN-<graph>-<phase>.ir and input values here.")
@click.argument("target", metavar="SCRIPT|FILE.ir")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def dump_command(target: str, args: tuple[str, ...], phase: str, emit: str, as_torch: bool, limit: int | None,
                 places: bool, folder: str | None) -> int:
    """Dump every graph that a script, or an .ir file, compiles. The script's own options follow `--`.

    With -o each graph is a file, beside it the values of its first run's inputs (.safetensors), ready for
    `tracemill exec`. Without it the script's own output goes to stderr, so that stdout holds the dump alone.

    \b
    Example:
      tracemill dump train.py --phase optimizer --graphs 2 -o graphs/ -- --epochs 1
    """
    writer = _Writer(phase, emit, places, Path(folder) if folder else None)
    if target.endswith(".ir") or target == "-":
        writer.write(load_graph(target), None)
        return 0
    return _dump_script(writer, target, args, as_torch, limit)


def _dump_script(writer: _Writer, script: str, args: Sequence[str], as_torch: bool, limit: int | None) -> int:
    from ...frontends.python.engine import on_compile

    def hook(graph: Graph, inputs: Any) -> None:
        writer.write(graph, inputs)
        if limit is not None and writer.count >= limit:
            raise Enough

    stop = on_compile(hook)
    try:
        with contextlib.redirect_stdout(sys.stderr) if writer.folder is None else contextlib.nullcontext():
            return run_script(script, args, as_torch)
    finally:
        stop()


class _Writer:
    """Numbers the graphs and prints them, or writes each into a file of its own."""

    def __init__(self, phase: str, emit: str, places: bool, folder: Path | None) -> None:
        self.phase = "kernels" if emit in ("kernel", "llvm", "asm") else phase
        self.emit, self.places, self.folder = emit, places, folder
        self.count = 0
        self.out = sys.stdout  # before a script's output is led elsewhere

    def write(self, graph: Graph, inputs: Sequence[Any] | None) -> None:
        self.count += 1
        constants: dict[str, Array] | None = {} if self.folder is not None else None
        sizes = sizes_of(graph, inputs)
        text = render(graph, self.phase, self.emit, self.places, constants, sizes)
        text = text if text.endswith("\n") else text + "\n"
        if self.folder is None:
            self.out.write(text if self.count == 1 else "\n" + text)
            self.out.flush()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() or c in "_.-" else "_" for c in graph.name or "graph")
        base = f"{self.count:03d}-{name}-{self.phase}"
        (self.folder / (base + suffix_of(self.phase, self.emit))).write_text(text, encoding="utf-8")
        if self.emit == "ir":
            arrays = {f"@{k}": v for k, v in (constants or {}).items()}
            if inputs is not None:
                # Numbers with a default are left to the text, where they are there to be edited.
                given = [(s.name, a) for s, a in zip(graph.inputs, inputs, strict=True) if s.default is None]
                arrays |= {name: np.asarray(a) for name, a in given}
            if arrays:
                save_arrays(self.folder / (base + ".safetensors"), arrays)


def suffix_of(phase: str, emit: str) -> str:
    """The ending of a dump's file name: `.ir` for what `tracemill opt` and `exec` read, `.plan` for plans."""
    return _SUFFIX.get(emit) or (".plan" if phase in ("planned", "kernels") else ".ir")


def sizes_of(graph: Graph, inputs: Sequence[Any] | None) -> dict[str, int]:
    """The named sizes at given input values; without values a typical binding."""
    from ...ir.graph import bind_sizes
    from ..driver import hints

    if inputs is None:
        return hints(graph, None)
    return hints(graph, bind_sizes(graph.inputs, [np.shape(a) for a in inputs], graph.sizes))


def render(graph: Graph, phase: str, emit: str, places: bool = False, constants: dict[str, Array] | None = None,
           sizes: Mapping[str, int] | None = None) -> str:
    """A graph at a phase, as text in one of the forms `EMITS`.

    Args:
        constants: takes the large constants, which are then printed by reference.
        sizes: values of the named sizes, to give the plan's peak bytes for.
    """
    if emit in ("kernel", "llvm", "asm"):
        return _kernels(_lower(graph, sizes), emit)
    if phase in ("planned", "kernels") and emit == "ir":
        emitted = _lower(graph, sizes)
        text = _plan(graph, emitted, sizes)
        return text if phase == "planned" else text + "\n" + _kernels(emitted, "source")
    from ..pipeline import phase_of, run_phases

    until = min(phase, "fused", key=PHASES.index)
    if PHASES.index(phase_of(graph)) > PHASES.index(until):
        raise TracemillError(f"graph {graph.name} is at phase {phase_of(graph)}, past {phase}")
    at = run_phases(graph, until)
    return _dot(at) if emit == "dot" else print_graph(at, constants=constants, places=places)


def _lower(graph: Graph, sizes: Mapping[str, int] | None) -> Emitted:
    from ..driver import lower_to_plan

    return lower_to_plan(graph, sizes=sizes)[1]


def _plan(graph: Graph, emitted: Emitted, sizes: Mapping[str, int] | None) -> str:
    from ..driver import hints

    plan = emitted.plan
    bound = hints(graph, sizes)
    peak = plan.arena if isinstance(plan.arena, int) else plan.arena.evaluate(plan.with_lets(bound))
    at = ", ".join(f"{n}={bound[n]}" for n in graph.size_names)
    return f"{plan.to_text()}peak {peak:,} bytes of temporaries{f' at {at}' if at else ''}\n"


def _kernels(emitted: Emitted, emit: str) -> str:
    """Every kernel: its kernel IR, its generated Python (`source`), its LLVM IR or its assembly."""
    mark = ";" if emit == "llvm" else "#"
    return "\n".join(f"{mark} kernel {key}\n{_kernel(emitted, key, emit).rstrip()}\n" for key in emitted.kernels)


def _kernel(emitted: Emitted, key: str, emit: str) -> str:
    request = emitted.kernels[key]
    if emit == "source":
        return request.source
    if emit == "kernel":
        return emitted.texts.get(key) or request.source
    from ..backend.numba_cpu import emit as emit_code

    return emit_code(request.source, request.entry, "asm" if emit == "asm" else "llvm", flags=request.flags)


def _dot(graph: Graph) -> str:
    """Graphviz text; nodes of one module scope share a colour."""
    number = {n: i for i, n in enumerate(graph.nodes)}
    scopes = {s: i for i, s in enumerate(dict.fromkeys(n.place.scope for n in graph.nodes))}
    lines = [f'digraph "{graph.name}" {{', '  node [shape=box, style=filled, fontname="monospace"];']
    for n, i in number.items():
        label = f"%{graph.inputs[n.attrs.index].name}" if n.op.name == "input" else n.op.name
        hue = scopes[n.place.scope] / max(len(scopes), 1)
        lines.append(f'  n{i} [label="{label}\\n{n.type}", fillcolor="{hue:.3f} 0.15 1.0"];')
        lines += [f"  n{number[x]} -> n{i};" for x in n.inputs]
    for name, o in zip(graph.output_names, graph.outputs, strict=True):
        lines.append(f'  "out {name}" [shape=oval]; n{number[o]} -> "out {name}";')
    return "\n".join([*lines, "}"])
