"""One workload under one system, in this process: prints a JSON line of figures. `run.py` starts it.

    python benchmarks/measure.py W3 tracemill --steps 100 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# A name, and what `-nhwc` adds: the images and weights in the channels-last memory format.
SYSTEMS = ("tracemill", "tracemill-loop", "torch", "torch-nhwc", "compile", "compile-nhwc", "jax", "jax-nhwc")
AT = 20  # the step whose loss the systems are compared at

Step = Callable[[], float]


def peak_bytes() -> int:
    """The highest resident set of this process so far."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def resident_bytes() -> int:
    """The resident set now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load(system: str, threads: int) -> Any:
    """Import a system, and give it its threads."""
    if system.startswith("jax"):
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}"
        import jax

        return jax
    if system.startswith("tracemill"):
        import tracemill as torch
    else:
        import torch  # type: ignore[no-redef]
    torch.set_num_threads(threads)
    return torch


def prepare(system: str, name: str, module: Any, size: int | None = None) -> Step:
    """A function that trains one step and returns the loss as a number."""
    nhwc = system.endswith("-nhwc")
    if system.startswith("jax"):
        import jax_workloads

        step, state, args = jax_workloads.build(name, size=size, channels_last=nhwc)

        def run() -> float:
            nonlocal state
            state, loss = step(state, *args)
            return float(loss)

        return run
    import workloads

    w = workloads.build(name, module, size=size, channels_last=nhwc)
    once: Any = w.step if system.startswith("torch") or system == "tracemill-loop" else module.compile(w.step)
    x, y = w.args
    return lambda: once(x, y).item()  # type: ignore[no-any-return]


def measure(system: str, name: str, steps: int, threads: int) -> dict[str, float]:
    """Figures of one workload.

    Returns:
        import_s: seconds to import the system; first_s: from there (the model's construction included) to the first
        step's loss; step_us: median step, its loss read; loss: after step `AT`; memory: bytes of the resident set's
        peak in `AT` steps above that after the import.
    """
    started = time.perf_counter()
    module = load(system, threads)
    imported = time.perf_counter()
    resident = resident_bytes()
    run = prepare(system, name, module)
    run()
    first = time.perf_counter() - imported
    for _ in range(AT - 1):
        loss = run()
    memory = peak_bytes() - resident
    times = []
    for _ in range(steps):
        at = time.perf_counter()
        run()
        times.append(time.perf_counter() - at)
    return {
        "step_us": statistics.median(times) * 1e6,
        "first_s": first,
        "import_s": imported - started,
        "loss": loss,
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(json.dumps(measure(args.system, args.workload, args.steps, args.threads)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
