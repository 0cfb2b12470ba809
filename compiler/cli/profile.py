"""`tracemill run --profile` and `--trace`: where a run's time went, by part and by kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ...runtime.profile import EntryTiming, Profile
from ..driver import Compiled, on_compiled, stats
from .roof import Roof, measured_roof

_SHOWN = 40  # kernels in the table


class Profiler:
    """Times every graph that is compiled or found compiled from now on, until `stop`."""

    def __init__(self) -> None:
        self.graphs: list[tuple[Compiled, Profile]] = []
        self._started = time.perf_counter()
        self._forget = on_compiled(self._see)
        self._wall = 0.0

    def _see(self, compiled: Compiled) -> None:
        compiled.executable.profile = profile = Profile(compiled.plan)
        self.graphs.append((compiled, profile))

    def stop(self) -> None:
        """No more graphs; the clock stops."""
        self._wall = time.perf_counter() - self._started
        self._forget()
        for compiled, _ in self.graphs:
            compiled.executable.profile = None

    def parts(self) -> dict[str, float]:
        """Seconds of the run by part. Numba's and LLVM's are of all compiler processes together, which work while
        passes do; `kernels` is how long the run waited for them."""
        found = stats()
        run = sum(p.total_ns for _, p in self.graphs) * 1e-9
        known = found["pass_seconds"] + found["kernel_seconds"] + run
        return {
            "wall": self._wall,
            "passes": found["pass_seconds"],
            "kernels": found["kernel_seconds"],
            "kernels: Numba": found["numba_seconds"],
            "kernels: LLVM": found["llvm_seconds"],
            "running": run,
            "Python: imports, tracing, the script": max(self._wall - known, 0.0),
        }

    def rows(self) -> list[tuple[Compiled, EntryTiming]]:
        """Every entry that ran, most time first."""
        found = [(c, t) for c, p in self.graphs for t in p.entries()]
        return sorted(found, key=lambda row: -row[1].total_ns)

    def write_table(self, file: TextIO) -> None:
        """The parts, and the kernels beside this machine's roofs."""
        from rich.console import Console
        from rich.table import Table

        parts, roof = self.parts(), measured_roof()
        console = Console(file=file, width=None if file.isatty() else 160)
        table = Table("seconds", "part", box=None, title="Where the time went", title_justify="left")
        for name, seconds in parts.items():
            table.add_row(f"{seconds:.3f}", name)
        console.print(table)
        rows = self.rows()
        title = (f"Kernels as the calling thread saw them; roofs {roof.gops:.0f} GFLOP/s (product of 1024³), "
                 f"{roof.gbytes:.0f} GB/s (copy of 128 MiB)")
        table = Table("calls", "ms", "wait ms", "µs/call", "Gop/s", "GB/s", "of roof", "graph: entry", "kernel",
                      box=None, title=title, title_justify="left")
        for compiled, t in rows[:_SHOWN]:
            table.add_row(*_cells(t, roof), f"{compiled.plan.name}: {t.entry}", t.label)
        console.print(table, soft_wrap=True)
        if len(rows) > _SHOWN:
            rest = sum(t.total_ns for _, t in rows[_SHOWN:]) * 1e-6
            console.print(f"and {len(rows) - _SHOWN} entries more, {rest:.2f} ms together")

    def write_trace(self, path: Path) -> None:
        """A Chrome trace (chrome://tracing, Perfetto) of each graph's average run, as the calling thread saw it."""
        events = [event for number, (c, p) in enumerate(self.graphs, 1) for event in _events(number, c, p)]
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
        temporary.replace(path)


def _cells(t: EntryTiming, roof: Roof) -> list[str]:
    share = roof.share(t.operations * t.calls, t.nbytes * t.calls, t.work_ns * 1e-9)
    return [f"{t.calls:,}", f"{t.total_ns * 1e-6:.2f}", f"{t.wait_ns * 1e-6:.2f}", f"{t.total_ns / t.calls * 1e-3:.1f}",
            f"{t.gops:.1f}", f"{t.gbytes:.1f}", f"{share:.0%}" if t.operations or t.nbytes else ""]


def _events(process: int, compiled: Compiled, profile: Profile) -> Iterator[dict[str, Any]]:
    """One graph's events: a process of the trace, its entries in plan order, waits before the work they are for."""
    entries = profile.entries()
    runs = min((t.calls for t in entries), default=0)
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name",
           "args": {"name": f"{compiled.plan.name} ({runs} runs, their average)"}}
    at = 0.0
    for t in entries:
        for name, nanoseconds in (("barrier", t.wait_ns), (t.label, t.work_ns)):
            duration = nanoseconds / runs * 1e-3
            if duration:
                details = {"entry": t.entry, "launches a run": t.calls / runs}
                if name != "barrier":
                    details |= {"Gop/s": round(t.gops, 2), "GB/s": round(t.gbytes, 2)}
                yield {"ph": "X", "pid": process, "tid": 0, "name": name, "ts": at, "dur": duration, "args": details}
                at += duration
