"""Time matrix products: `python benchmarks/gemm.py [--threads 1 2] [--only 1024] [--with numpy torch] [--python …]`.

Every system runs in a process of its own for each number of threads, the systems in turn; printed are GFLOP/s from the
median time of a call, packing and the call itself included. `numpy` is the BLAS that NumPy brings (OpenBLAS in its
wheels), `torch` is PyTorch's product (oneDNN or MKL), for which `--python` names an interpreter that has it. `blas` is
tracemill with `TRACEMILL_GEMM=blas`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

SYSTEMS = ("tracemill", "numpy", "torch", "blas")
# Seconds of measurement for one case, and least number of calls.
_SECONDS, _CALLS = 0.12, 15


@dataclass(frozen=True)
class Case:
    """`batch` products of m × k by k × n; `layout` says which operands are stored transposed (`t`)."""

    m: int
    k: int
    n: int
    layout: str = "nn"
    batch: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        batch = "×".join(map(str, self.batch)) + " of " if self.batch else ""
        marks = ["ᵀ" if side == "t" else "" for side in self.layout]
        return f"{batch}{self.m}×{self.k}{marks[0]} · {self.k}×{self.n}{marks[1]}"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n * prod(self.batch)

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How the operands are stored."""
        a = (self.m, self.k) if self.layout[0] == "n" else (self.k, self.m)
        b = (self.k, self.n) if self.layout[1] == "n" else (self.n, self.k)
        return (*self.batch, *a), (*self.batch, *b)

    def operands(self) -> tuple[Any, Any]:
        """Random operands as they are stored, on cache lines of their own like every framework's tensors."""
        rng = np.random.default_rng(0)
        a, b = (aligned(shape) for shape in self.shapes)
        for x in (a, b):
            rng.standard_normal(out=x, dtype=np.float32)
        return a, b


def aligned(shape: tuple[int, ...]) -> Any:
    """A new float32 array that begins on a cache line."""
    raw = np.empty(4 * prod(shape) + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + 4 * prod(shape)].view(np.float32).reshape(shape)


CASES = (
    Case(128, 784, 512, "nt"),  # an MLP's layers: forward, the gradient of its weights and of its input
    Case(512, 128, 784, "tn"),
    Case(128, 512, 784),
    Case(128, 512, 512, "nt"),
    Case(768, 128, 384),  # a transformer's layers
    Case(768, 128, 384, "nt"),
    Case(768, 512, 128),
    Case(768, 512, 128, "nt"),
    Case(128, 768, 512, "tn"),
    Case(512, 768, 128, "tn"),
    Case(128, 512, 10, "nt"),  # ten classes
    Case(128, 10, 512),
    Case(10, 128, 512, "tn"),
    Case(64, 9216, 128, "nt"),
    Case(1024, 1024, 1024),
    Case(1024, 1024, 1024, "nt"),
    Case(1024, 1024, 1024, "tn"),
    Case(1024, 1024, 1024, "tt"),
    Case(2000, 2000, 2000),
    Case(1, 1024, 1024),  # vectors
    Case(1, 1024, 1024, "nt"),
    Case(1024, 1024, 1),
    Case(1024, 1024, 1, "tn"),
    Case(8192, 64, 64),  # tall and wide
    Case(64, 64, 8192),
    Case(64, 8192, 64, "tn"),
    Case(100, 100, 100),
    Case(64, 32, 64, "nt", (12, 4)),  # attention's scores and values
    Case(64, 64, 32, "nn", (12, 4)),
    Case(64, 64, 32, "tn", (12, 4)),
)


def timed(call: Callable[[], object]) -> float:
    """The median time of a call in seconds."""
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < _CALLS or (sum(times) < _SECONDS and len(times) < 5000):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def with_tracemill(threads: int) -> Callable[[Case], tuple[Callable[[], object], Callable[[], Any]]]:
    """Products as compiled graphs."""
    import tracemill as tm
    from tracemill.compiler.driver import compile_graph
    from tracemill.ir.text import parse_graph

    tm.set_num_threads(threads)

    def prepare(case: Case) -> tuple[Callable[[], object], Callable[[], Any]]:
        r = len(case.batch)
        text = [",".join(map(str, shape)) for shape in case.shapes]
        attrs = {
            "contract_a": [r + (case.layout[0] == "n")],
            "contract_b": [r + (case.layout[1] == "t")],
            "batch_a": list(range(r)),
            "batch_b": list(range(r)),
        }
        shown = ", ".join(f"{name}={value}" for name, value in attrs.items())
        shape = ",".join(map(str, (*case.batch, case.m, case.n)))
        source = f"graph (%a: f32[{text[0]}], %b: f32[{text[1]}]) {{ %0 = dot(%a, %b) {{{shown}}} : f32[{shape}] "
        compiled = compile_graph(parse_graph(source + "return y = %0 }"))
        inputs = list(case.operands())
        out = aligned((*case.batch, case.m, case.n))
        return lambda: compiled.run(inputs, None, [out]), lambda: out

    return prepare


def with_numpy(_: int) -> Callable[[Case], tuple[Callable[[], object], Callable[[], Any]]]:
    """NumPy's BLAS; its threads are set in the environment."""

    def prepare(case: Case) -> tuple[Callable[[], object], Callable[[], Any]]:
        a, b = case.operands()
        a = a.swapaxes(-1, -2) if case.layout[0] == "t" else a
        b = b.swapaxes(-1, -2) if case.layout[1] == "t" else b
        out = aligned((*case.batch, case.m, case.n))
        return lambda: np.matmul(a, b, out=out), lambda: out

    return prepare


def with_torch(threads: int) -> Callable[[Case], tuple[Callable[[], object], Callable[[], Any]]]:
    """PyTorch's product."""
    import torch

    torch.set_num_threads(threads)

    def prepare(case: Case) -> tuple[Callable[[], object], Callable[[], Any]]:
        a, b = (torch.from_numpy(x) for x in case.operands())
        a = a.transpose(-1, -2) if case.layout[0] == "t" else a
        b = b.transpose(-1, -2) if case.layout[1] == "t" else b
        out = torch.empty((*case.batch, case.m, case.n))
        return lambda: torch.matmul(a, b, out=out), lambda: out.numpy()

    return prepare


def measure(system: str, threads: int, cases: list[Case]) -> list[float]:
    """GFLOP/s of every case in this process; each result is checked against float64.

    The checks come last: they start the threads of NumPy's BLAS, which linger.
    """
    makers = {"tracemill": with_tracemill, "blas": with_tracemill, "numpy": with_numpy, "torch": with_torch}
    prepare = makers[system](threads)
    rates, results = [], []
    for case in cases:
        call, result = prepare(case)
        rates.append(case.flops / timed(call) / 1e9)
        results.append(result)
    for case, result in zip(cases, results, strict=True):
        a, b = (x.astype(np.float64) for x in case.operands())
        a = a.swapaxes(-1, -2) if case.layout[0] == "t" else a
        b = b.swapaxes(-1, -2) if case.layout[1] == "t" else b
        if not np.allclose(result(), a @ b, rtol=1e-3, atol=1e-2):
            raise SystemExit(f"{system}: wrong result for {case.name}")
    return rates


def child(system: str, threads: int, only: str, python: str) -> list[float]:
    """`measure` in a fresh process."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env |= {"OPENBLAS_NUM_THREADS": str(threads), "TRACEMILL_GEMM": "blas" if system == "blas" else "generated"}
    command = [python, str(Path(__file__).resolve()), "--one", system, "--threads", str(threads), "--only", only]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    rates: list[float] = json.loads(done.stdout)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--with", dest="peers", nargs="*", default=["numpy"], choices=SYSTEMS[1:])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has torch")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cases = [case for case in CASES if args.only in case.name]
    if args.one:
        print(json.dumps(measure(args.one, args.threads[0], cases)))
        return
    systems = ["tracemill", *args.peers]
    found = {
        (s, t): child(s, t, args.only, args.python if s == "torch" else sys.executable)
        for t in args.threads
        for s in systems
    }
    columns = [(s, t) for t in args.threads for s in systems]
    width = max(len(case.name) for case in cases) + 2
    print(f"{'GFLOP/s':{width}}" + "".join(f"{s + ' ' + str(t):>14}" for s, t in columns))
    for i, case in enumerate(cases):
        print(f"{case.name:{width}}" + "".join(f"{found[c][i]:14.1f}" for c in columns))


if __name__ == "__main__":
    main()
