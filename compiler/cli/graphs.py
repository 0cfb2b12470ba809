"""`tracemill opt`, `exec` and `diff`: work on .ir files."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ...ir.errors import DTypeError, TracemillError
from ...ir.graph import Graph, InputSpec
from ...ir.node import Node
from ...ir.text import parse_graph, print_graph
from ...ir.verify import verify

Array = np.ndarray[Any, Any]


def load_graph(file: str) -> Graph:
    """The graph of an .ir file, verified; its large constants come from the .safetensors beside it. `-` is stdin."""
    path = Path(file)
    try:
        text = sys.stdin.read() if file == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not text") from None
    side = path.with_suffix(".safetensors")
    constants = {}
    if "(@" in text and side.exists():
        constants = {k[1:]: v for k, v in load_arrays(str(side)).items() if k.startswith("@")}
    graph = parse_graph(text, constants, "<stdin>" if file == "-" else file)
    verify(graph)
    return graph


def load_arrays(file: str) -> dict[str, Array]:
    """The tensors of a .safetensors file. Raises TracemillError for anything else."""
    from ...ir.arrays import read_arrays

    return read_arrays(file)


def save_arrays(file: str | Path, arrays: dict[str, Array]) -> None:
    """Write a .safetensors file."""
    from ...ir.arrays import write_arrays

    write_arrays(file, arrays)


@click.command("opt")
@click.argument("file", required=False)
@click.option("--passes", "pipeline", default="", metavar="LIST",
              help='For example "autodiff,cse,dce"; options in braces: NAME{option=value}.')
@click.option("--list", "listing", is_flag=True, help="List the passes and their options.")
@click.option("--places", is_flag=True, help="Print source line and module scope of every node.")
@click.option("-o", "output", metavar="OUT.ir", help="Write here instead of printing.")
def opt_command(file: str | None, pipeline: str, listing: bool, places: bool, output: str | None) -> None:
    """Parse and verify FILE.ir (- is stdin), run PASSES over it, print the resulting IR.

    The result is verified after every pass.

    \b
    Example:
      tracemill opt step.ir --passes "autodiff,optimizer,cse,dce"
    """
    if listing:
        click.echo(list_passes(), nl=False)
        return
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    graph = load_graph(file)
    if pipeline.strip():
        from ..passes import parse_pipeline
        from ..pipeline import PassManager

        graph = PassManager(lambda event: verify(event.after)).run(graph, parse_pipeline(pipeline))
    constants: dict[str, Array] | None = {} if output else None
    text = print_graph(graph, constants=constants, places=places)
    if output is None:
        click.echo(text, nl=False)
        return
    Path(output).write_text(text, encoding="utf-8")
    if constants:
        save_arrays(str(Path(output).with_suffix(".safetensors")), {f"@{k}": v for k, v in constants.items()})


def list_passes() -> str:
    """Every pass with the first line of its description and its options' defaults."""
    from ..passes import registry

    lines = []
    for name, cls in registry().items():
        options = ", ".join(f"{f.name}={f.default!r}" for f in dataclasses.fields(cls))  # type: ignore[arg-type]
        about = (cls.__doc__ or "").strip().splitlines()
        lines.append(f"{name:16} {about[0] if about else ''}" + (f"  {{{options}}}" if options else ""))
    return "\n".join(lines) + "\n"


def _named_inputs(given: Sequence[str]) -> dict[str, Array]:
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


def gather_inputs(graph: Graph, named: dict[str, Array], beside: Path) -> list[Array]:
    """One array per graph input: as named, else from the .safetensors beside the file, else the text's default.

    Raises:
        TracemillError: a name that the graph lacks, an input without value, a value of another dtype.
    """
    known = [s.name for s in graph.inputs]
    unknown = [n for n in named if n not in known]
    if unknown:
        raise TracemillError(f"the graph has no input %{unknown[0]}; it has {', '.join(f'%{n}' for n in known)}")
    if any(n not in named for n in known) and beside.exists():
        named = {k: v for k, v in load_arrays(str(beside)).items() if k in known} | named
    return [_array(spec, named.get(spec.name)) for spec in graph.inputs]


def _array(spec: InputSpec, value: Array | None) -> Array:
    wanted = spec.type.dtype
    if value is None and spec.default is not None:
        return np.asarray(spec.default, dtype=wanted.numpy)
    if value is None:
        raise TracemillError(f"input %{spec.name}: {spec.type} has no value",
                             hint=f"give it with --inputs FILE.safetensors or --inputs {spec.name}=FILE.npy")
    if value.dtype != wanted.numpy:
        raise DTypeError(f"input %{spec.name}: {spec.type} was given an array of {value.dtype}",
                         hint=f"store it as {wanted.long_name}")
    if not spec.type.shape and value.size == 1 and value.ndim <= 1:
        value = value.reshape(())
    return np.ascontiguousarray(value) if value.ndim else value


@click.command("exec")
@click.argument("file")
@click.argument("more", nargs=-1, metavar="[MORE INPUTS]...")
@click.option("--inputs", "given", multiple=True, metavar="FILE.safetensors|NAME=FILE.npy",
              help="Input values, several if need be. What is missing comes from the .safetensors beside FILE.ir.")
@click.option("--set", "numbers", multiple=True, metavar="NAME=NUMBER", help="A scalar input's value.")
@click.option("--interpret", is_flag=True, help="Run by the NumPy reference interpreter, operator by operator.")
@click.option("--check", is_flag=True, help="Run both ways and compare; exit code 1 beyond rounding.")
@click.option("--nan", is_flag=True, help="Interpret; show the first operator that makes a NaN or an infinity.")
@click.option("-o", "output", metavar="OUT.safetensors", help="Write the outputs here instead of printing a summary.")
def exec_command(file: str, more: tuple[str, ...], given: tuple[str, ...], numbers: tuple[str, ...], interpret: bool,
                 check: bool, nan: bool, output: str | None) -> int:
    """Run FILE.ir. Hyper-parameters take the default that the text prints unless given.

    \b
    Example:
      tracemill exec step.ir --inputs first.safetensors --set lr=0.01 -o out.safetensors
      tracemill exec step.ir --inputs x=x.npy w=w.npy --interpret
    """
    graph = load_graph(file)
    named = _named_inputs((*given, *more))
    for item in numbers:
        named.update(_number(graph, item))
    inputs = gather_inputs(graph, named, Path(file).with_suffix(".safetensors"))
    if nan:
        return _first_nan(graph, inputs)
    values = run_graph(graph, inputs, interpret and not check)
    code = _compare(graph, values, run_graph(graph, inputs, True)) if check else 0
    outputs = dict(zip(graph.output_names, values, strict=True))
    if output is not None:
        save_arrays(output, outputs)
    elif not check:
        for (name, value), node in zip(outputs.items(), graph.outputs, strict=True):
            shown = str(value) if value.ndim == 0 else np.array2string(value.ravel(), threshold=8, edgeitems=3)
            click.echo(f"{name}: {node.type} = {shown}")
    return code


def _number(graph: Graph, item: str) -> dict[str, Array]:
    name, _, text = item.partition("=")
    spec = next((s for s in graph.inputs if s.name == name), None)
    if spec is None or spec.type.shape:
        raise TracemillError(f"--set {item}: the graph has no scalar input {name}")
    try:
        number = float(text) if spec.type.dtype.is_float else int(text)
        return {name: np.asarray(number, dtype=spec.type.dtype.numpy)}
    except (ValueError, OverflowError):
        raise TracemillError(f"--set {item}: {text!r} is not a number of {spec.type.dtype.long_name}") from None


def run_graph(graph: Graph, inputs: Sequence[Array], interpret: bool) -> list[Array]:
    """The outputs of a graph at any phase, inputs left unchanged."""
    inputs = [a.copy() for a in inputs]
    if interpret:
        from ...ir.interp import evaluate

        with np.errstate(all="ignore"):
            return evaluate(_expanded(graph), inputs)
    from ..driver import compile_graph
    from .report import CompileBar

    return compile_graph(graph, progress=CompileBar()).run(inputs)


def _expanded(graph: Graph) -> Graph:
    """Without symbolic nodes, which have no value of their own."""
    from ..driver import expand_symbolic

    symbolic = any(n.op.name in ("gradient", "update") for n in graph.nodes)
    return expand_symbolic(graph) if symbolic else graph


# Root mean square difference of compiled and interpreted results, of the largest value, that rounding in another order
# explains. Single elements may be off by a hundred times as much: where Adam divides a tiny gradient by itself, say.
_TOLERANCE = {"f64": 1e-10, "f32": 1e-5, "f16": 5e-3, "bf16": 2e-2}


def _compare(graph: Graph, compiled: Sequence[Array], reference: Sequence[Array]) -> int:
    """Print how far every output is apart, relative to its largest value; 1 if one is too far."""
    code = 0
    for name, node, a, b in zip(graph.output_names, graph.outputs, compiled, reference, strict=True):
        tolerance = _TOLERANCE.get(node.dtype.name, 0.0)
        x, y = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(all="ignore"):
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            scale = max(float(np.max(np.abs(y), where=np.isfinite(y), initial=0.0)), 1e-30)
            apart = np.where(same, 0.0, np.abs(x - y) / scale)
            largest, mean = float(apart.max(initial=0.0)), float(np.sqrt(np.mean(apart**2))) if apart.size else 0.0
        good = mean <= tolerance and largest <= 100 * tolerance  # False for NaN
        code |= not good
        mark = "" if good else "  <-- too far apart"
        click.echo(f"{name}: {node.type}  largest difference {largest:.1e}, root mean square {mean:.1e}{mark}")
    return code


def _first_nan(graph: Graph, inputs: Sequence[Array]) -> int:
    """Print the first operator whose result is not finite though its inputs are; 1 if there is one."""
    from ...ir.interp import trace
    from ...ir.text.printer import statement_lines

    graph = _expanded(graph)
    lines = dict(statement_lines(graph))
    values: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node, value in trace(graph, inputs):
            values[node] = value
            if _finite(value) or node not in lines:
                continue
            place = f"  ({node.place.location}{' in ' + node.place.scope if node.place.scope else ''})" if (
                node.place.location) else ""
            click.echo(f"{lines[node]}{place}\n  result   {_range(value)}")
            for i, operand in enumerate(node.inputs):
                click.echo(f"  operand {i}  {_range(values[operand])}")
            return 1
    click.echo("every value is finite")
    return 0


def _finite(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(bool(np.isfinite(p.astype(np.float64)).all()) for p in parts)


def _range(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_range, value))
    x = value.astype(np.float64)
    finite = x[np.isfinite(x)]
    span = f"{finite.min():.6g} … {finite.max():.6g}" if finite.size else "no finite value"
    return f"{span}, {int(np.isnan(x).sum())} NaN, {int(np.isinf(x).sum())} infinite of {x.size}"


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
