"""`tracemill run` and `tracemill compile`: scripts under tracemill."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from ...ir.errors import InternalError, TracemillError
from ...ir.graph import Graph
from .report import BUG, FAILED, OK, CompileBar, describe, user_traceback

_PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


class Enough(BaseException):
    """Raised in a script to stop it once all wanted graphs were seen. Not an Exception: scripts must not catch it."""


def run_script(script: str, args: Sequence[str], as_torch: bool = False) -> int:
    """Run a file as `python` would: `__main__`, `__file__`, `sys.argv`, `sys.path[0]`. Returns the exit code."""
    path = Path(script)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read {script}: {error.strerror}") from None
    module = ModuleType("__main__")
    module.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None, __package__=None)
    sys.modules["__main__"] = module
    sys.argv = [script, *args]
    sys.path.insert(0, str(path.resolve().parent))
    if as_torch:
        from ...frontends.python.as_torch import install

        install()
    try:
        exec(compile(source, script, "exec"), module.__dict__)
        sys.stdout.flush()
        return OK
    except Enough:
        return OK
    except SystemExit as stop:
        return _exit_code(stop)
    except TracemillError as error:
        sys.stdout.flush()
        print(describe(error), file=sys.stderr)
        return BUG if isinstance(error, InternalError) else FAILED
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.stdout.flush()
        print(user_traceback(error), file=sys.stderr)
        return FAILED


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return OK
    if isinstance(stop.code, int):
        return stop.code
    print(stop.code, file=sys.stderr)
    return FAILED


def write_stats(file: str) -> None:
    """`tm.stats()` as JSON, written at once or not at all."""
    import tracemill

    target = Path(file)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(tracemill.stats(), indent=2, default=str) + "\n")
    temporary.replace(target)


def _with_bar() -> None:
    from ..driver import show_progress

    show_progress(CompileBar())


@click.command("run", context_settings=_PASS_THROUGH)
@click.option("--as-torch", is_flag=True, help="`import torch` in the script, and in what it imports, means tracemill.")
@click.option("--stats", "stats_file", metavar="FILE.json", help="Write counters of the run: graphs, kernels, flushes, seconds.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run_command(script: str, args: tuple[str, ...], as_torch: bool, stats_file: str | None) -> int:
    """Run SCRIPT with its ARGS.

    \b
    Example:
      tracemill run --as-torch --stats stats.json train.py --epochs 3
    """
    _with_bar()
    try:
        return run_script(script, args, as_torch)
    finally:
        if stats_file:
            write_stats(stats_file)


@click.command("compile", context_settings=_PASS_THROUGH)
@click.option("--as-torch", is_flag=True, help="`import torch` in the script, and in what it imports, means tracemill.")
@click.option("--graphs", "limit", type=click.IntRange(1), metavar="N", help="Stop the script after N graphs.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def compile_command(script: str, args: tuple[str, ...], as_torch: bool, limit: int | None) -> int:
    """Run SCRIPT to fill the caches, then print its graphs with their kernels and peak bytes.

    \b
    Example:
      tracemill compile --as-torch --graphs 2 train.py
    """
    _with_bar()
    seen: list[Any] = []
    stop = on_compiled(lambda compiled: seen.append(compiled), limit)
    try:
        code = run_script(script, args, as_torch)
    finally:
        stop()
    _print_graphs(seen)
    return code


def on_compiled(see: Callable[[Any], None], limit: int | None) -> Callable[[], None]:
    """Call `see` with every graph that is compiled or found compiled; stop the script after `limit` of them."""
    from ..driver import on_compiled as register

    count = 0

    def hook(compiled: Any) -> None:
        nonlocal count
        see(compiled)
        count += 1
        if limit is not None and count >= limit:
            raise Enough

    return register(hook)


def _print_graphs(seen: Sequence[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("graph", "nodes", "launches", "kernels", "peak bytes", "plan")
    kernels: dict[str, None] = {}
    for c in seen:
        graph: Graph = c.graph
        sizes = {name: 64 for name in graph.size_names} | dict(graph.sizes)
        kernels.update(dict.fromkeys(c.plan.kernels))
        table.add_row(graph.name, str(len(graph.nodes)), str(len(c.plan.flat)), str(len(c.plan.kernels)),
                      f"{c.peak_bytes(sizes):,}", "cached" if c.from_cache else "compiled")
    console = Console()
    console.print(table)
    console.print(f"{len(seen)} graphs, {len(kernels)} distinct kernels")
