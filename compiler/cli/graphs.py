"""`tracemill opt`, `exec` and `diff`: work on .ir files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ...ir.dtypes import dtype
from ...ir.errors import TracemillError
from ...ir.graph import Graph
from ...ir.text import parse_graph, print_graph

Array = np.ndarray[Any, Any]


def load_graph(file: str) -> Graph:
    """The graph of an .ir file; its large constants come from the .safetensors beside it."""
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not text") from None
    side = path.with_suffix(".safetensors")
    constants = {}
    if "(@" in text and side.exists():
        constants = {k[1:]: v for k, v in load_arrays(str(side)).items() if k.startswith("@")}
    return parse_graph(text, constants, file)


def load_arrays(file: str) -> dict[str, Array]:
    """The tensors of a .safetensors file. Raises TracemillError for anything else."""
    from ...ir.arrays import read_arrays

    return read_arrays(file)


def save_arrays(file: str, arrays: dict[str, Array]) -> None:
    """Write a .safetensors file."""
    from ...ir.arrays import write_arrays

    write_arrays(file, arrays)


@click.command("opt")
@click.argument("file")
@click.option("--passes", "pipeline", default="", metavar="LIST", help='For example "cse,dce,fuse"; options as in fuse{max_nodes=8}.')
@click.option("--places", is_flag=True, help="Print source line and module scope of every node.")
@click.option("-o", "output", metavar="OUT.ir", help="Write here instead of printing.")
def opt_command(file: str, pipeline: str, places: bool, output: str | None) -> None:
    """Parse and verify FILE.ir, run PASSES over it, print the resulting IR.

    \b
    Example:
      tracemill opt step.ir --passes "autodiff,optimizer,cse,dce"
    """
    from ..passes import parse_pipeline
    from ..pipeline import PassManager

    graph = load_graph(file)
    if pipeline.strip():
        graph = PassManager().run(graph, parse_pipeline(pipeline))
    constants: dict[str, Array] | None = {} if output else None
    text = print_graph(graph, constants=constants, places=places)
    if output is None:
        click.echo(text, nl=False)
        return
    Path(output).write_text(text, encoding="utf-8")
    if constants:
        save_arrays(str(Path(output).with_suffix(".safetensors")), {f"@{k}": v for k, v in constants.items()})


def _named_inputs(given: tuple[str, ...]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for item in given:
        name, equals, file = item.partition("=")
        if not equals:
            found.update({k: v for k, v in load_arrays(item).items() if not k.startswith("@")})
            continue
        try:
            found[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"cannot read {file}: {error}") from None
    return found


def _inputs(graph: Graph, given: dict[str, Array]) -> list[Array]:
    known = {s.name for s in graph.inputs}
    unknown = sorted(set(given) - known)
    if unknown:
        raise TracemillError(f"the graph has no input {unknown[0]}; it has {', '.join(sorted(known))}")
    arrays = []
    for spec in graph.inputs:
        if spec.name in given:
            a = given[spec.name]
            scalar = not spec.type.shape and a.size == 1 and a.ndim <= 1
            arrays.append(np.ascontiguousarray(a.reshape(())) if scalar else np.ascontiguousarray(a))
        elif spec.default is not None:
            arrays.append(np.asarray(spec.default, dtype=dtype(spec.type.dtype.name).numpy))
        else:
            raise TracemillError(f"input %{spec.name}: {spec.type} has no value",
                                 hint=f"give it with --inputs FILE.safetensors or --inputs {spec.name}=FILE.npy")
    return arrays


@click.command("exec")
@click.argument("file")
@click.option("--inputs", "given", multiple=True, metavar="FILE.safetensors|NAME=FILE.npy",
              help="Input values; may be repeated. By default the .safetensors beside FILE.ir, if there is one.")
@click.option("--set", "numbers", multiple=True, metavar="NAME=NUMBER", help="A hyper-parameter's value.")
@click.option("--interpret", is_flag=True, help="Run by the NumPy reference interpreter, operator by operator.")
@click.option("-o", "output", metavar="OUT.safetensors", help="Write the outputs here instead of printing a summary.")
def exec_command(file: str, given: tuple[str, ...], numbers: tuple[str, ...], interpret: bool, output: str | None) -> None:
    """Run FILE.ir. Hyper-parameters take the default that the text prints unless given.

    \b
    Example:
      tracemill exec step.ir --inputs first.safetensors --set lr=0.01 -o out.safetensors
    """
    graph = load_graph(file)
    side = Path(file).with_suffix(".safetensors")
    if not given and side.exists():
        given = (str(side),)
    named = _named_inputs(given)
    for item in numbers:
        named.update(_number(graph, item))
    values = run_graph(graph, _inputs(graph, named), interpret)
    outputs = dict(zip(graph.output_names, values, strict=True))
    if output is not None:
        save_arrays(output, outputs)
        return
    for (name, value), node in zip(outputs.items(), graph.outputs, strict=True):
        shown = value.item() if value.ndim == 0 else np.array2string(value.ravel(), threshold=8, edgeitems=3)
        click.echo(f"{name}: {node.type} = {shown}")


def _number(graph: Graph, item: str) -> dict[str, Array]:
    name, _, text = item.partition("=")
    spec = next((s for s in graph.inputs if s.name == name), None)
    if spec is None or spec.type.shape:
        raise TracemillError(f"--set {item}: the graph has no scalar input {name}")
    try:
        return {name: np.asarray(float(text), dtype=spec.type.dtype.numpy)}
    except ValueError:
        raise TracemillError(f"--set {item}: {text!r} is not a number") from None


def run_graph(graph: Graph, inputs: list[Array], interpret: bool) -> list[Array]:
    """The outputs of a graph at any phase, inputs left unchanged."""
    from ...ir.interp import evaluate

    if interpret:
        from ..driver import expand_symbolic

        symbolic = any(n.op.name in ("gradient", "update") for n in graph.nodes)
        return evaluate(expand_symbolic(graph) if symbolic else graph, inputs)
    from ..driver import compile_graph
    from .report import CompileBar

    compiled = compile_graph(graph, progress=CompileBar())
    return compiled.run([a.copy() for a in inputs])


@click.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--context", default=2, show_default=True, help="Unchanged lines around a difference.")
def diff_command(a: str, b: str, context: int) -> int:
    """Show how graph B differs in structure from graph A. Exit code 1 if they differ.

    \b
    Example:
      tracemill diff before.ir after.ir
    """
    from ...ir.diff import diff_graphs

    left, right = load_graph(a), load_graph(b)
    if left == right:
        return 0
    click.echo(diff_graphs(left, right, context=context) or "the graphs differ in order of operations only\n", nl=False)
    return 1
