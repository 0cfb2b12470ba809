"""How the command line ends: exit codes, short errors with the user's line, progress of long compilations."""

from __future__ import annotations

import linecache
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import click

from ...ir.errors import InternalError, Location, TracemillError

OK, FAILED, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130
_PACKAGE = __name__.split(".", 1)[0]
_LINES = 12


def guarded(run: Callable[[], Any]) -> int:
    """Run a command; errors become a short text on stderr and an exit code."""
    try:
        result = run()
        return result if isinstance(result, int) else OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe has gone (`tracemill dump … | head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except TracemillError as error:
        print(describe(error), file=sys.stderr)
        return BUG if isinstance(error, InternalError) else FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def describe(error: TracemillError) -> str:
    """At most twelve lines: the place with its source line, what is wrong, what to do."""
    place = error.location or innermost(error.__traceback__)
    error.location = place
    lines = f"error: {error}".splitlines()
    if place is not None:
        source = linecache.getline(place.file, place.line).strip()
        if source:
            lines.insert(1, f"    {source}")
    if len(lines) > _LINES:
        lines = [*lines[:_LINES - 1], "…"]
    return "\n".join(lines)


def innermost(trace: TracebackType | None) -> Location | None:
    """The innermost frame of an exception that is not tracemill's."""
    found = None
    for frame, line in traceback.walk_tb(trace):
        name = str(frame.f_globals.get("__name__", ""))
        if not _internal(name, frame.f_code.co_filename):
            found = Location(frame.f_code.co_filename, line)
    return found


def _internal(module: str, file: str) -> bool:
    return (module.split(".", 1)[0] in (_PACKAGE, "numba", "numpy", "lark", "click", "runpy")
            or file.startswith("<frozen"))


def user_traceback(error: BaseException) -> str:
    """An exception of the script as Python prints it, without tracemill's frames."""
    kept = [f for f, (frame, _) in zip(traceback.extract_tb(error.__traceback__), traceback.walk_tb(error.__traceback__),
                                       strict=True)
            if not _internal(str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename)]
    head = ["Traceback (most recent call last):\n", *traceback.format_list(kept)] if kept else []
    return "".join([*head, *traceback.format_exception_only(error)]).rstrip("\n")


class CompileBar:
    """A progress bar that appears once compiling takes longer than a second, on a terminal."""

    def __init__(self) -> None:
        self.started = 0.0
        self.bar: Any = None
        self.task: Any = None

    def __call__(self, done: int, total: int) -> None:
        if done == 0:
            self.started = time.monotonic()
        if self.bar is None and time.monotonic() - self.started > 1.0 and done < total and sys.stderr.isatty():
            self._open(total)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)
            if done == total:
                self.bar.stop()
                self.bar = None

    def _open(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("compiling kernels", total=total)
        self.bar.start()
