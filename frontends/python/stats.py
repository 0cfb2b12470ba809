"""Counters of the frontend for `tm.stats()`."""

from __future__ import annotations

import time
from collections import Counter

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


def snapshot() -> dict[str, object]:
    """All counters as plain data."""
    return {
        "graphs_traced": traced,
        "graphs_compiled": compiled,
        "graphs_interpreted": interpreted,
        "runs": runs,
        "seconds_to_first_step": seconds_to_first_step,
        "flushes": [{"line": line, "reason": reason, "count": n} for (line, reason), n in sorted(flushes.items())],
    }
