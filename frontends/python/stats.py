"""Counters: what the frontend did, and `tm.stats()`, which adds what the compiler did."""

from __future__ import annotations

import sys
import time
from typing import Any

from ...ir.node import Place
from .registry import function

STARTED = time.perf_counter()
traced = 0  # distinct graphs that were traced
compiled = 0  # graphs handed to the compiler
interpreted = 0  # graphs of exactly rounded operators, evaluated once without compiling
runs = 0
_flushes: dict[tuple[int, str], list[Any]] = {}  # (id of the place, reason) -> [place, reason, count]
seconds_to_first_step: float | None = None


def first_step() -> None:
    """An optimizer step was recorded; the first flush after it ends the clock."""
    global _step_marked
    _step_marked = True


_step_marked = False


def ran() -> None:
    """A graph has been run."""
    global runs, seconds_to_first_step
    runs += 1
    if _step_marked and seconds_to_first_step is None:
        seconds_to_first_step = time.perf_counter() - STARTED


def flushed(place: Place, reason: str) -> None:
    """A pending trace is about to be run."""
    known = _flushes.get((id(place), reason))
    if known is None:
        known = _flushes[id(place), reason] = [place, reason, 0]
    known[2] += 1


def reset() -> None:
    """Set every counter to zero."""
    global traced, compiled, interpreted, runs, seconds_to_first_step, _step_marked
    traced = compiled = interpreted = runs = 0
    seconds_to_first_step, _step_marked = None, False
    _flushes.clear()


def snapshot() -> dict[str, Any]:
    """The frontend's counters as plain data."""
    flushes: dict[tuple[str, str], int] = {}
    for place, reason, count in _flushes.values():
        line = str(place.location), reason
        flushes[line] = flushes.get(line, 0) + count
    return {
        "graphs_traced": traced,
        "graphs_requested": compiled,
        "graphs_interpreted": interpreted,
        "runs": runs,
        "seconds_to_first_step": seconds_to_first_step,
        "flushes": [{"line": line, "reason": reason, "count": n} for (line, reason), n in sorted(flushes.items())],
    }


# What the compiler would say before it was asked for anything.
_NOTHING: dict[str, Any] = {"graphs_compiled": 0, "graphs_loaded": 0, "kernels_compiled": 0, "kernels_loaded": 0,
                            "peak_bytes": 0, "pass_seconds": 0.0, "kernel_seconds": 0.0, "graphs": []}


@function("stats")
def stats() -> dict[str, Any]:
    """What this process has done, as plain data; `tracemill run --stats FILE.json` writes it.

    Keys:
        graphs_traced: distinct traces; graphs_interpreted: those that ran once without being compiled.
        graphs_requested: graphs that the compiler was asked for; graphs_compiled: those that went through its passes;
            graphs_loaded: those whose plan was in the cache.
        graphs: each of them: nodes, updates (optimizer groups inside), launches, kernels, peak bytes, cached.
        kernels_compiled, kernels_loaded: made in this process; in all.
        runs: graphs run; flushes: the script's line, why, and how often a pending trace was run.
        seconds_to_first_step: from the import of tracemill to the first optimizer step's result; None without one.
        peak_bytes: of temporaries, in the graph that needs most.
    """
    driver = sys.modules.get(__name__.replace(".frontends.python.stats", ".compiler.driver"))
    below = driver.stats() if driver is not None else _NOTHING
    return snapshot() | below
