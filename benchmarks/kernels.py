"""Each kernel of a workload's compiled step: `python benchmarks/kernels.py W4 [--threads 2]`."""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import workloads

_STEPS = 20


@dataclass(frozen=True)
class Row:
    """One plan entry, per step: microseconds of work, operations, bytes of its operands."""

    label: str
    us: float
    wait_us: float
    flops: float
    bytes: float

    def share(self, roof: Any) -> float:
        """Of the nearer roof; above 1 where operands stay in a cache."""
        return max(self.flops / roof.flops, self.bytes / roof.bandwidth) * 1e6 / self.us if self.us else 0.0


def profile(name: str, threads: int) -> tuple[float, list[Row]]:
    """The median step in µs without profiling, and its kernels."""
    import tracemill as tm
    from tracemill.compiler.driver import on_compiled
    from tracemill.runtime.profile import Profile

    tm.set_num_threads(threads)
    seen: list[Any] = []
    forget = on_compiled(seen.append)
    w = workloads.build(name, tm)
    step = tm.compile(w.step)
    for _ in range(5):
        step(*w.args).item()
    forget()
    times = []
    for _ in range(_STEPS):
        at = time.perf_counter()
        step(*w.args).item()
        times.append(time.perf_counter() - at)
    profiles = [Profile(c.plan) for c in seen]
    for compiled, p in zip(seen, profiles, strict=True):
        compiled.executable.profile = p
    for _ in range(_STEPS):
        step(*w.args).item()
    rows = [
        Row(t.label, t.work_ns * 1e-3 / _STEPS, t.wait_ns * 1e-3 / _STEPS, t.operations * t.calls / _STEPS,
            t.nbytes * t.calls / _STEPS)
        for p in profiles
        for t in p.entries()
    ]
    return statistics.median(times) * 1e6, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=workloads.NAMES)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    step_us, rows = profile(args.workload, args.threads)
    print(f"{args.workload}: {step_us:,.1f} us")
    for r in sorted(rows, key=lambda r: -r.us - r.wait_us)[:50]:
        print(f"{r.us:9.1f} us, waits {r.wait_us:7.1f}  {r.flops / max(r.us, 1e-9) / 1e3:7.1f} Gop/s "
              f"{r.bytes / max(r.us, 1e-9) / 1e3:7.1f} GB/s  {r.label}")


if __name__ == "__main__":
    main()
