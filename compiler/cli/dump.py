"""`tracemill dump`: every graph a script compiles, or one .ir file, at a phase and in a form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from ...ir.graph import Graph
from ...ir.text import print_graph
from .graphs import load_graph, save_arrays
from .script import _PASS_THROUGH, Enough, run_script

Array = np.ndarray[Any, Any]
EMITS = ("ir", "kernel", "llvm", "asm", "dot")
SUFFIX = {"ir": ".ir", "kernel": ".kernel", "llvm": ".ll", "asm": ".s", "dot": ".dot"}
PHASES = ("traced", "differentiated", "optimizer", "replicated", "simplified", "fused", "planned", "kernels")


@click.command("dump", context_settings=_PASS_THROUGH)
@click.option("--phase", type=click.Choice(PHASES), default="optimizer", show_default=True, help="How far to compile.")
@click.option("--emit", type=click.Choice(EMITS), default="ir", show_default=True, help="What to show.")
@click.option("--as-torch", is_flag=True, help="`import torch` in the script, and in what it imports, means tracemill.")
@click.option("--graphs", "limit", type=click.IntRange(1), metavar="N", help="Stop the script after N graphs.")
@click.option("--places", is_flag=True, help="Print source line and module scope of every node.")
@click.option("-o", "folder", metavar="DIR", help="Write NNN-<graph>-<phase>.ir and input values here instead of printing.")
@click.argument("target")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def dump_command(target: str, args: tuple[str, ...], phase: str, emit: str, as_torch: bool, limit: int | None,
                 places: bool, folder: str | None) -> int:
    """Dump every graph that TARGET (a script, or an .ir file) compiles.

    With -o each graph is a file, beside it the values of its first run's inputs (.safetensors), ready for
    `tracemill exec`.

    \b
    Example:
      tracemill dump train.py --phase optimizer --graphs 2 -o graphs/
    """
    writer = _Writer(phase, emit, places, Path(folder) if folder else None)
    if target.endswith(".ir"):
        writer.write(load_graph(target), None)
        return 0
    from ...frontends.python.engine import on_compile

    def hook(graph: Graph, inputs: Any) -> None:
        writer.write(graph, inputs)
        if limit is not None and writer.count >= limit:
            raise Enough

    stop = on_compile(hook)
    try:
        return run_script(target, args, as_torch)
    finally:
        stop()


class _Writer:
    def __init__(self, phase: str, emit: str, places: bool, folder: Path | None) -> None:
        self.phase, self.emit, self.places, self.folder = phase, emit, places, folder
        self.count = 0

    def write(self, graph: Graph, inputs: Any) -> None:
        self.count += 1
        constants: dict[str, Array] | None = {} if self.folder is not None else None
        text = render(graph, self.phase, self.emit, self.places, constants)
        if self.folder is None:
            click.echo(text, nl=not text.endswith("\n"))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() or c in "_.-" else "_" for c in graph.name or "graph")
        base = self.folder / f"{self.count:03d}-{name}-{self.phase}"
        base.with_name(base.name + SUFFIX[self.emit]).write_text(text, encoding="utf-8")
        if self.emit == "ir":
            arrays = {f"@{k}": v for k, v in (constants or {}).items()}
            if inputs is not None:
                arrays |= {s.name: np.asarray(a) for s, a in zip(graph.inputs, inputs, strict=True)}
            if arrays:
                save_arrays(str(base.with_name(base.name + ".safetensors")), arrays)


def render(graph: Graph, phase: str, emit: str, places: bool = False, constants: dict[str, Array] | None = None) -> str:
    """A graph at a phase, as text in one of the forms `EMITS`."""
    from ..pipeline import run_phases

    if emit in ("kernel", "llvm", "asm"):
        return _kernels(graph, emit)
    if phase in ("planned", "kernels") and emit == "ir":
        return _planned(graph, phase)
    at = run_phases(graph, until=min(phase, "fused", key=PHASES.index))
    return _dot(at) if emit == "dot" else print_graph(at, constants=constants, places=places)


def _planned(graph: Graph, phase: str) -> str:
    from ..driver import hints, lower_to_plan

    _, emitted = lower_to_plan(graph)
    text: str = emitted.plan.to_text()
    sizes = hints(graph, None)
    peak = emitted.plan.arena if isinstance(emitted.plan.arena, int) else emitted.plan.arena.evaluate(
        emitted.plan.with_lets(sizes))
    text += f"peak {peak:,} bytes" + (f" at {', '.join(f'{n}={sizes[n]}' for n in graph.size_names)}" if graph.size_names else "")
    if phase == "planned":
        return text + "\n"
    sources = [f"# kernel {key}\n{request.source}" for key, request in emitted.kernels.items()]
    return text + "\n\n" + "\n".join(sources)


def _kernels(graph: Graph, emit: str) -> str:
    from ..driver import lower_to_plan

    _, emitted = lower_to_plan(graph)
    show: Callable[[str, Any], str]
    if emit == "kernel":
        def show(key: str, request: Any) -> str:
            return emitted.texts.get(key) or request.source
    else:
        from ..backend.numba_cpu import emit as emit_code

        def show(key: str, request: Any) -> str:
            return str(emit_code(request.source, request.entry, emit))
    mark = ";" if emit == "llvm" else "#"
    return "\n".join(f"{mark} kernel {key}\n{show(key, request)}" for key, request in emitted.kernels.items())


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
