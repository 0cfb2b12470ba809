"""What must hold besides speed: `python benchmarks/checks.py [W1 …]`.

Bits: the parameters' SHA-256 after 5 steps is one for 1, 2 and 3 threads, and for code for AVX-512 and AVX2.
Gradients: the first step's parameters' gradients against a float64 run, relative to the largest of each.
Sizes: batch sizes from 2 to 256 on a step that has run once: kernels compiled (0) and the slowest first result.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
from workloads import NAMES, build

SIZES = (2, 3, 5, 17, 31, 64, 100, 128, 200, 256)


def digest(name: str, steps: int = 5) -> str:
    """SHA-256 of all parameters and buffers after some compiled steps."""
    import tracemill as tm

    w = build(name, tm)
    step = tm.compile(w.step)
    for _ in range(steps):
        loss = step(*w.args)
    found = hashlib.sha256(np.asarray(loss.item()).tobytes())
    for key, value in sorted(w.model.state_dict().items()):
        found.update(key.encode() + np.ascontiguousarray(value.numpy()).tobytes())
    return found.hexdigest()


def check_bits(name: str) -> str:
    """The digests of processes with different threads and instruction sets, compared."""
    found = {}
    settings = [("1 thread", {"TRACEMILL_NUM_THREADS": "1"}), ("2 threads", {"TRACEMILL_NUM_THREADS": "2"}),
                ("3 threads", {"TRACEMILL_NUM_THREADS": "3"}), ("AVX2", {"TRACEMILL_CPU": "x86-64-v3"})]
    for label, setting in settings:
        command = [sys.executable, __file__, name, "--digest"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | setting, check=True)
        found[label] = done.stdout.split()[-1]
    same = len(set(found.values())) == 1
    return "bits: the same for " + ", ".join(found) if same else f"bits: DIFFER {found}"


def check_gradients(name: str) -> str:
    """The worst gradient element against the same model in float64, relative to the gradient's largest element."""
    import tracemill as tm

    def gradients(dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
        w = build(name, tm)
        model = w.model.to(dtype)
        x, y = (t.to(dtype) if t.dtype == tm.float32 else t for t in w.args)
        out = model(x)
        if name in ("W1", "W7"):
            loss = tm.nn.MSELoss()(out, y)
        else:
            loss = tm.nn.CrossEntropyLoss()(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        loss.backward()
        return {k: p.grad.numpy() for k, p in model.named_parameters()}

    single, double = gradients(tm.float32), gradients(tm.float64)
    worst = max((float(np.abs(single[k] - g).max() / max(np.abs(g).max(), 1e-12)), k) for k, g in double.items())
    return f"gradients: {worst[0]:.1e} from float64 at most ({worst[1]})"


def check_sizes(name: str) -> str:
    """New batch sizes on a step that has run once."""
    import tracemill as tm

    w = build(name, tm)
    step = tm.compile(w.step)
    for size in (16, 24):  # the second size makes the step's graph symbolic
        step(*build(name, tm, size=size).args).item()
    before = kernels_compiled(tm)
    slowest = 0.0, 0
    for size in SIZES:
        args = build(name, tm, size=size).args
        at = time.perf_counter()
        step(*args).item()
        slowest = max(slowest, (time.perf_counter() - at, size))
    count = kernels_compiled(tm) - before
    return f"sizes: {count} kernels compiled, first result after {slowest[0] * 1e3:.1f} ms at most ({slowest[1]})"


def kernels_compiled(tm: Any) -> int:
    """How many kernels this process has compiled."""
    return int(tm.stats()["kernels_compiled"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=NAMES)
    parser.add_argument("--digest", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.workloads:
        if args.digest:
            print(digest(name))
            continue
        for check in (check_bits, check_gradients, check_sizes):
            print(f"{name} {check(name)}", flush=True)


if __name__ == "__main__":
    main()
