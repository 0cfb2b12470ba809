"""Time training steps: `python benchmarks/run.py [W1 W2 …] [--with torch] [--steps 200]`.

Every workload runs in a process of its own per system, the systems in turn, so that drift of the machine hits all.
Printed are medians of the step time in microseconds, and seconds to the first step's result. Peers go into a virtual
environment of their own (`--python` names its interpreter).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SYSTEMS = ("tracemill", "tracemill-loop", "torch", "torch-compile")


def measure(system: str, name: str, steps: int, threads: int) -> dict[str, float]:
    """One workload in this process."""
    started = time.perf_counter()
    if system.startswith("tracemill"):
        import tracemill as torch

        torch.set_num_threads(threads)
    else:
        import torch  # type: ignore[no-redef]

        torch.set_num_threads(threads)
    from workloads import WORKLOADS

    step, args = WORKLOADS[name](torch)
    run: Any = torch.compile(step) if system in ("tracemill", "torch-compile") else step
    begun = time.perf_counter()
    run(*args).item()
    first = time.perf_counter() - begun
    for _ in range(max(steps // 10, 3)):
        run(*args)
    times = []
    for _ in range(steps):
        at = time.perf_counter()
        loss = run(*args)
        if system == "tracemill-loop":
            loss.item()  # the plain loop computes when a value is asked for
        times.append(time.perf_counter() - at)
    return {
        "step_us": statistics.median(times) * 1e6,
        "first_s": first,
        "import_s": begun - started,
        "loss": loss.item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=[f"W{i}" for i in range(1, 8)])
    parser.add_argument("--with", dest="peers", action="append", default=[], choices=SYSTEMS[2:])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.workloads[0], args.steps, args.threads)))
        return
    systems = [*SYSTEMS[:2], *args.peers]
    print(f"{'':4}" + "".join(f"{s:>26}" for s in systems) + "   (median step in us, first step in s)")
    for name in args.workloads:
        runs: dict[str, list[dict[str, float]]] = {s: [] for s in systems}
        for _ in range(args.repeat):
            for s in systems:
                python = args.python if s.startswith("torch") else sys.executable
                command = [
                    python,
                    str(Path(__file__).resolve()),
                    name,
                    "--one",
                    s,
                    "--steps",
                    str(args.steps),
                    "--threads",
                    str(args.threads),
                ]
                done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
                if done.returncode:
                    sys.exit(f"{s} {name} failed:\n{done.stderr[-2000:]}")
                runs[s].append(json.loads(done.stdout.splitlines()[-1]))
        cells = [
            f"{statistics.median(r['step_us'] for r in rs):14,.0f} {statistics.median(r['first_s'] for r in rs):11.2f}"
            for rs in runs.values()
        ]
        print(f"{name:4}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
