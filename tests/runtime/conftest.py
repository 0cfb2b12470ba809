"""The native runner and a few kernels, written once, compiled and as plain Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.backend.numba_cpu import compile_source, kernel_symbol
from tracemill.compiler.backend.plain import run_python
from tracemill.compiler.backend.runner_source import compile_runner
from tracemill.ir.dims import Dim, product
from tracemill.ir.dtypes import DType, f32
from tracemill.runtime import layout, workers
from tracemill.runtime.executor import Executable, KernelCode
from tracemill.runtime.plan import (
    BufferSpec,
    BufferUse,
    Constant,
    Entry,
    KernelCall,
    Plan,
    PlanInput,
    PlanOutput,
    find_sizes,
)
from tracemill.runtime.reference_runner import run_reference

HEAD = "from tracemill.compiler.backend.intrinsics import *\n"

SOURCES = {
    # y[i] = x[i] * 2 + 1
    "affine": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    for i in range(begin, end):
        y[i] = x[i] * f32(2.0) + f32(1.0)
    return 0
""",
    # y[i] = a[i] + b[i]
    "add": """
def entry(buffers, extents, begin, end, scratch, status):
    a = f32_ptr(buffers, 0)
    b = f32_ptr(buffers, 1)
    y = f32_ptr(buffers, 2)
    for i in range(begin, end):
        y[i] = a[i] + b[i]
    return 0
""",
    # y[i] = 0.5 * x[i] + x[n - 1 - i]: every worker reads what another wrote
    "mirror": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    n = extents[0]
    for i in range(begin, end):
        y[i] = f32(0.5) * x[i] + x[n - 1 - i]
    return 0
""",
    # y[r] = sum(x[r, :]) through scratch
    "rowsum": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    total = f32_at(scratch, 0)
    n = extents[0]
    for r in range(begin, end):
        total[0] = f32(0.0)
        for j in range(n):
            total[0] = total[0] + x[r * n + j]
        y[r] = total[0]
    return 0
""",
    # y[i] = x[index[i]], checked
    "take": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    index = i64_ptr(buffers, 1)
    y = f32_ptr(buffers, 2)
    n = extents[0]
    for i in range(begin, end):
        k = index[i]
        if k < 0 or k >= n:
            return fail(status, 1, 7, k, n)
        y[i] = x[k]
    return 0
""",
    # x[i] += 1 in place
    "bump": """
def entry(buffers, extents, begin, end, scratch, status):
    y = f32_ptr(buffers, 0)
    for i in range(begin, end):
        y[i] = y[i] + f32(1.0)
    return 0
""",
    # y = link(x) in the link's own operands, row by row of n; the link sees the extents after n
    "by_rows": """
def entry(buffers, extents, begin, end, scratch, status):
    n = extents[0]
    words = local_i64(4)
    for r in range(begin, end):
        words[0] = r
        call_link(buffers, 0, 2, extents, 1, r * n, (r + 1) * n, f32_ptr(buffers, 1), words)
    return 0
""",
    # y[i] = the caller's x[i] * factor[its word 0] + its first extent
    "scaled": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_at(scratch, 0)
    factor = f32_ptr(buffers, 0)
    y = f32_ptr(buffers, 1)
    for i in range(begin, end):
        y[i] = x[i] * factor[status[0]] + f32(extents[0])
    return 0
""",
    # flag = x[0] < limit
    "below": """
def entry(buffers, extents, begin, end, scratch, status):
    x = f32_ptr(buffers, 0)
    limit = f32_ptr(buffers, 1)
    flag = bool_ptr(buffers, 2)
    for i in range(begin, end):
        flag[i] = x[i] < limit[i]
    return 0
""",
}


@dataclass
class Builder:
    """A plan with the least typing: collects its parts; buffer methods return uses."""

    name: str = "test"
    inputs: list[PlanInput] = field(default_factory=list)
    outputs: list[PlanOutput] = field(default_factory=list)
    buffers: list[BufferSpec] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    arena: Dim = 0

    def _buffer(self, kind: str, index: int, offset: Dim, dtype: DType, shape: tuple[Dim, ...]) -> BufferUse:
        nbytes = product(shape) * dtype.itemsize
        self.buffers.append(BufferSpec(kind, index, offset, nbytes, dtype, shape))  # type: ignore[arg-type]
        return BufferUse(len(self.buffers) - 1)

    def input(self, name: str, *shape: Dim, dtype: DType = f32) -> BufferUse:
        self.inputs.append(PlanInput(name, dtype, shape))
        return self._buffer("input", len(self.inputs) - 1, 0, dtype, shape)

    def output(self, name: str, *shape: Dim, dtype: DType = f32, replaces: int = -1) -> BufferUse:
        self.outputs.append(PlanOutput(name, dtype, shape, replaces))
        return self._buffer("output", len(self.outputs) - 1, 0, dtype, shape)

    def temporary(self, *shape: Dim, dtype: DType = f32) -> BufferUse:
        nbytes = product(shape) * dtype.itemsize
        use = self._buffer("arena", 0, self.arena, dtype, shape)
        self.arena = self.arena + (nbytes + 63) // 64 * 64
        return use

    def constant(self, data: bytes, *shape: Dim, dtype: DType = f32) -> BufferUse:
        self.constants.append(Constant(data))
        return self._buffer("constant", len(self.constants) - 1, 0, dtype, shape)

    def plan(self, *entries: Entry, sizes: tuple[str, ...] = ()) -> Plan:
        return Plan(
            self.name,
            find_sizes(tuple(self.inputs), sizes),
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(self.buffers),
            entries,
            tuple(self.constants),
            self.arena,
        )

    @staticmethod
    def call(
        kernel: str, *buffers: BufferUse, range: Dim, extents: tuple[Dim, ...] = (), **options: Any
    ) -> KernelCall:
        return KernelCall(kernel, buffers, extents, range, **options)


class Kit:
    """Builds executables of a plan, native and reference."""

    def __init__(self) -> None:
        self.runner = KernelCode(compile_runner(), layout.RUNNER_SYMBOL)
        self._native: dict[str, KernelCode] = {}
        self._plain: dict[str, Any] = {}

    def native(self, name: str) -> KernelCode:
        if name not in self._native:
            source = HEAD + SOURCES[name]
            self._native[name] = KernelCode(compile_source(source, "entry"), kernel_symbol(source, "entry"))
        return self._native[name]

    def plain(self, name: str) -> Any:
        if name not in self._plain:
            self._plain[name] = run_python(HEAD + SOURCES[name], "entry")
        return self._plain[name]

    def executable(self, plan: Plan, *, parallel: bool = True, **options: Any) -> Executable:
        """`parallel`: share even the least work."""
        plan.validate()
        executable = Executable(plan, {key: self.native(key) for key in plan.kernels}, self.runner, **options)
        if parallel:
            find = executable._find

            def shared(*args: Any) -> Any:
                bound = find(*args)
                bound.alone = bound.workers == 1
                return bound

            executable._find = shared  # type: ignore[method-assign]
        return executable

    def check(
        self, plan: Plan, make_inputs: Callable[[], list[np.ndarray]], **options: Any
    ) -> list[np.ndarray]:
        """Run a plan with 1 to 4 threads and by the reference runner: the same bits. Returns the outputs."""
        results = []
        kernels = {key: self.plain(key) for key in plan.kernels}
        for count, backwards in ((1, False), (3, False), (3, True)):
            outputs = run_reference(
                plan, kernels, make_inputs(), workers=count, backwards=backwards, **options
            )
            results.append([o.copy() for o in outputs])
        executable = self.executable(plan)
        for count in (1, 2, 3, 4):
            workers.set_num_threads(count)
            for _ in range(3):
                results.append([o.copy() for o in executable.run(make_inputs(), **options)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape
                assert a.tobytes() == b.tobytes()
        return results[-1]


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = workers.get_num_threads()
    yield
    workers.set_num_threads(before)


@pytest.fixture
def b() -> Builder:
    return Builder()
