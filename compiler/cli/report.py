"""How the command line ends: exit codes, short errors with the user's line, progress of long compilations."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from ...ir.errors import CacheError, InternalError, IRSyntaxError, Location, TracemillError

OK, FAILED, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130
_PACKAGE = __name__.split(".", 1)[0]
_LINES, _WIDTH = 12, 400


def guarded(run: Callable[[], Any]) -> int:
    """Run a command; errors become a short text on stderr and an exit code."""
    try:
        result = run()
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe has gone (`tracemill dump … | head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except TracemillError as error:
        return show(error)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except Exception as error:
        return show(as_bug(error))


def plain_cache_warnings() -> None:
    """Warnings about the cache as one line, without a place in tracemill's code."""
    from ..cache import CacheWarning

    usual = warnings.formatwarning

    def form(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> str:
        if issubclass(category, CacheWarning):
            return f"warning: {message}\n"
        return usual(message, category, *args, **kwargs)

    warnings.formatwarning = form


def show(error: TracemillError) -> int:
    """Print an error, short; its exit code. `TRACEMILL_TRACEBACK=1` prints every frame before it."""
    sys.stdout.flush()
    if wants_frames():
        traceback.print_exception(error)
    print(describe(error), file=sys.stderr)
    return BUG if isinstance(error, InternalError) else FAILED


def wants_frames() -> bool:
    """Whether the person at the keyboard asked for tracebacks with tracemill's own frames."""
    return os.environ.get("TRACEMILL_TRACEBACK", "") not in ("", "0")


def as_bug(error: Exception) -> InternalError:
    """An exception that no code raised on purpose, its traceback put into a file for the report."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(".txt", "tracemill-traceback-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        hint = f"report it with the traceback in {name}"
    except OSError:
        hint = "run again with TRACEMILL_TRACEBACK=1 and report it with the traceback"
    bug = InternalError(f"{type(error).__name__}: {error}", hint=hint)
    bug.__cause__ = error
    return bug


def describe(error: TracemillError) -> str:
    """At most twelve lines: the place with its source line, what is wrong, what to do. The hint always fits."""
    syntax = isinstance(error, IRSyntaxError)  # its text shows the line already
    # No line of the script is to blame for an unfit environment.
    blameless = syntax or isinstance(error, CacheError) or error.message.startswith("TRACEMILL_")
    place = error.location or (None if blameless else innermost(error.__traceback__))
    source = ""
    if place is not None:
        source = linecache.getline(place.file, place.line).strip() if not syntax else ""
        error.location = Location(_short(place.file), place.line)
    hint = [] if error.hint is None else f"  hint: {error.hint}".splitlines()
    saved, error.hint = error.hint, None
    lines = f"error: {error}".splitlines()
    error.hint = saved
    if source:
        lines.insert(1, f"    {source}")
    room = _LINES - len(hint)
    if len(lines) > room:
        lines = [*lines[:room - 1], "  …"]
    return "\n".join(line if len(line) <= _WIDTH else line[:_WIDTH - 1] + "…" for line in [*lines, *hint][:_LINES])


def _short(file: str) -> str:
    """A path as a person in the current folder would write it."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd())) if path.is_absolute() else file
    except (ValueError, OSError):
        return file


def innermost(trace: TracebackType | None) -> Location | None:
    """The innermost frame of an exception that is the user's: not tracemill's, not a library's."""
    found = None
    for frame, line in traceback.walk_tb(trace):
        if not _ours(frame.f_code.co_filename) and not _library(frame.f_code.co_filename):
            found = Location(frame.f_code.co_filename, line)
    return found


@functools.cache
def _our_folders() -> tuple[str, ...]:
    """Where tracemill's own files lie (an editable installation maps several folders)."""
    found: dict[str, None] = {}
    for name in ("", ".ir", ".compiler", ".runtime", ".frontends"):
        module = sys.modules.get(_PACKAGE + name)
        if module is not None and module.__file__:
            found[str(Path(module.__file__).parent) + os.sep] = None
    return tuple(found)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(paths[k] + os.sep for k in ("purelib", "platlib", "stdlib", "platstdlib") if k in paths))


def _ours(file: str) -> bool:
    return file.startswith(_our_folders())


def _library(file: str) -> bool:
    return file.startswith("<frozen") or file.startswith(_library_folders())


def user_traceback(error: BaseException) -> str:
    """An exception of the script as Python prints it, without tracemill's frames and what they called."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    if not wants_frames():
        _strip(shown, set())
    return "".join(shown.format()).rstrip("\n")


def _strip(shown: traceback.TracebackException, seen: set[int]) -> None:
    """Drop our frames, and library frames below ours, from an exception and all it is chained to."""
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept, inside = [], False
    for frame in shown.stack:
        inside = _ours(frame.filename) or (inside and _library(frame.filename))
        if not inside and not frame.filename.startswith("<frozen"):
            kept.append(frame)
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _strip(other, seen)


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
