"""`tracemill run` and `tracemill compile`: scripts under tracemill."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from ...ir.errors import TracemillError
from .report import FAILED, OK, CompileBar, show, user_traceback

# `run`: everything after the script is the script's, as under `python`.
_SCRIPT_LAST = {"ignore_unknown_options": True, "allow_interspersed_args": False}
AS_TORCH = click.option("--as-torch", is_flag=True,
                        help="`import torch` in the script, and in what it imports, means tracemill.")


class Enough(BaseException):
    """Raised in a script to stop it once all wanted graphs were seen. Not an Exception: scripts must not catch it."""


def run_script(script: str, args: Sequence[str], as_torch: bool = False) -> int:
    """Run a file as `python` would: `__main__`, `__file__`, `sys.argv`, `sys.path[0]`. Returns the exit code."""
    path = Path(script).absolute()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"cannot read {script}: {error.strerror}") from None
    module = ModuleType("__main__")
    module.__dict__.update(__file__=str(path), __builtins__=__builtins__, __cached__=None, __package__=None,
                           __annotations__={}, __loader__=SourceFileLoader("__main__", str(path)))
    sys.modules["__main__"] = module
    sys.argv = [script, *args]
    if not sys.flags.safe_path:  # what stands there now is the folder of the command `tracemill`
        sys.path[0] = str(path.resolve().parent)
    try:
        if as_torch:
            from ...frontends.python.as_torch import install

            install()
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        return OK
    except Enough:
        return OK
    except SystemExit as stop:
        return _exit_code(stop)
    except TracemillError as error:
        return show(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.stdout.flush()
        if sys.excepthook is not sys.__excepthook__:  # the script's own, as under `python`
            sys.excepthook(type(error), error, error.__traceback__)
        else:
            print(user_traceback(error), file=sys.stderr)
        return FAILED


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None:
        return OK
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    sys.stdout.flush()
    print(stop.code, file=sys.stderr)
    return FAILED


def write_stats(file: str) -> None:
    """`tm.stats()` as JSON, complete or not at all."""
    from ...frontends.python.stats import stats

    target = Path(file)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps(stats(), indent=2, default=str) + "\n")
    temporary.replace(target)


def _with_bar() -> None:
    from ..driver import show_progress

    show_progress(CompileBar())


@click.command("run", context_settings=_SCRIPT_LAST)
@AS_TORCH
@click.option("--stats", "stats_file", metavar="FILE.json", type=click.Path(dir_okay=False, writable=True),
              help="Write counters of the run: graphs, kernels, flushes, seconds.")
@click.option("--profile", "table", is_flag=True, help="Print where the time went, by part and by kernel.")
@click.option("--trace", "trace_file", metavar="FILE.json", type=click.Path(dir_okay=False, writable=True),
              help="Write a Chrome trace of each graph's average run.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run_command(script: str, args: tuple[str, ...], as_torch: bool, stats_file: str | None, table: bool,
                trace_file: str | None) -> int:
    """Run SCRIPT with its ARGS (options of `run` stand before SCRIPT).

    The exit code is the script's; an uncaught exception's is 1.

    \b
    Example:
      tracemill run --as-torch --stats stats.json train.py --epochs 3
    """
    for option, file in (("--stats", stats_file), ("--trace", trace_file)):
        if file and not Path(file).absolute().parent.is_dir():
            raise click.BadParameter(f"the folder of {file} does not exist", param_hint=option)
    _with_bar()
    # Before the script: it may leave with another working directory, or by an error.
    trace = Path(trace_file).absolute() if trace_file else None
    with _profiled(table, trace):
        try:
            return run_script(script, args, as_torch)
        finally:
            if stats_file:
                write_stats(stats_file)


@contextmanager
def _profiled(table: bool, trace: Path | None) -> Iterator[None]:
    """Time the kernels of a block, and say so at its end."""
    if not table and trace is None:
        yield
        return
    from .profile import Profiler

    profiler = Profiler()
    try:
        yield
    finally:
        profiler.stop()
        if table:
            sys.stdout.flush()
            profiler.write_table(sys.stderr)
        if trace is not None:
            profiler.write_trace(trace)


@click.command("compile")
@AS_TORCH
@click.option("--graphs", "limit", type=click.IntRange(1), metavar="N", help="Stop the script after N graphs.")
@click.option("--kernels", "listing", is_flag=True, help="List the kernels: launches, and the operators they compute.")
@click.argument("script")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def compile_command(script: str, args: tuple[str, ...], as_torch: bool, limit: int | None, listing: bool) -> int:
    """Run SCRIPT to fill the caches, then print its graphs with their kernels and peak bytes.

    The script's own options follow `--`.

    \b
    Example:
      tracemill compile --as-torch --graphs 2 train.py -- --epochs 1
    """
    _with_bar()
    seen: list[Any] = []
    stop = on_compiled(seen.append, limit)
    try:
        code = run_script(script, args, as_torch)
    finally:
        stop()
    _print_graphs(seen)
    if listing:
        _print_kernels(seen)
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


_COLUMNS = ("graph", "nodes", "launches", "kernels", "peak bytes", "plan")


def _print_graphs(seen: Sequence[Any]) -> None:
    from ..driver import describe_compiled

    kernels: dict[str, None] = {}
    rows = []
    for compiled in seen:
        kernels.update(dict.fromkeys(compiled.plan.kernels))
        d = describe_compiled(compiled)
        rows.append((d["graph"], str(d["nodes"]), str(d["launches"]), str(d["kernels"]), f"{d['peak_bytes']:,}",
                     "cached" if d["cached"] else "compiled"))
    width = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        cells = [c.rjust(w) if 0 < i < 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, width, strict=True))]
        click.echo("  ".join(cells).rstrip())
    click.echo(f"{len(seen)} graph{'s' * (len(seen) != 1)}, {len(kernels)} distinct kernels")


def _print_kernels(seen: Sequence[Any]) -> None:
    """Each kernel once: how many launches of all graphs call it, and what the first of them computes."""
    from ...runtime.plan import KernelCall

    launches: dict[str, list[str]] = {}
    for compiled in seen:
        for _, entry in compiled.plan.flat:
            if isinstance(entry, KernelCall):
                launches.setdefault(entry.kernel, []).append(entry.node)
    click.echo()
    for kernel, nodes in launches.items():
        click.echo(f"{kernel}  {len(nodes):4}  {nodes[0]}")
