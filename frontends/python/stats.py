"""Counters: what the frontend did, and `tm.stats()`, which adds what the compiler did."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from .registry import function

STARTED = time.perf_counter()
traced = 0  # distinct graphs that were traced
compiled = 0  # graphs handed to the compiler
interpreted = 0  # graphs of exactly rounded operators, evaluated once without compiling
runs = 0
flushes: Counter[tuple[str, str]] = Counter()  # (user's line, reason) -> count
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


def reset() -> None:
    """Set every counter to zero."""
    global traced, compiled, interpreted, runs, seconds_to_first_step, _step_marked
    traced = compiled = interpreted = runs = 0
    seconds_to_first_step, _step_marked = None, False
    flushes.clear()


def snapshot() -> dict[str, Any]:
    """The frontend's counters as plain data."""
    return {
        "graphs_traced": traced,
        "graphs_compiled": compiled,
        "graphs_interpreted": interpreted,
        "runs": runs,
        "seconds_to_first_step": seconds_to_first_step,
        "flushes": [{"line": line, "reason": reason, "count": n} for (line, reason), n in sorted(flushes.items())],
    }


@function()
def stats() -> dict[str, Any]:
    """Counters of this process, as plain data (`tracemill run --stats FILE.json` writes them).

    Keys:
        graphs_traced: distinct traces; graphs_interpreted: those that ran once without compiling.
        graphs_compiled, graphs_loaded: graphs that went through the passes; graphs whose plan was in the cache.
        kernels_compiled, kernels_loaded: made in this process; read from the cache.
        graphs: each compiled or loaded graph: nodes, updates (parameters' update nodes), launches, kernels, peak bytes.
        runs: graphs run. flushes: where in the script, why and how often a pending trace was run.
        seconds_to_first_step: from the import of tracemill to the first optimizer step's result; None without one.
        peak_bytes: of temporaries, in the graph that needs most.
    """
    from ...compiler import driver

    traced, made = snapshot(), driver.stats()
    del traced["graphs_compiled"]  # those handed to the compiler: it knows which it compiled and which it found
    compiled, loaded = made.pop("graphs_compiled"), made.pop("plans_loaded")
    return {**traced, "graphs_compiled": compiled, "graphs_loaded": loaded, **made}
