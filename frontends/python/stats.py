"""Counters: what the frontend did, and `tm.stats()`, which adds what the compiler did."""

from __future__ import annotations

import sys
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
        "graphs_requested": compiled,
        "graphs_interpreted": interpreted,
        "runs": runs,
        "seconds_to_first_step": seconds_to_first_step,
        "flushes": [{"line": line, "reason": reason, "count": n} for (line, reason), n in sorted(flushes.items())],
    }


@function("stats")
def stats() -> dict[str, Any]:
    """What this process has done: graphs traced and compiled, kernels compiled and loaded, flushes with the lines that
    caused them, seconds from the import to the first optimizer step's result, peak bytes.

    `graphs_traced` counts distinct traces, `graphs_requested` the graphs that the compiler was asked for,
    `graphs_compiled` those that went through its passes (the others were found in the cache).
    """
    driver = sys.modules.get(__name__.replace(".frontends.python.stats", ".compiler.driver"))
    below = driver.stats() if driver is not None else {"graphs_compiled": 0, "kernels_compiled": 0,
                                                       "kernels_loaded": 0, "peak_bytes": 0}
    return snapshot() | below
