"""Runs generated kernels: as plain Python and compiled, in any split of the parallel range."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.backend.numba_cpu import CompileFlags, compile_source, kernel_symbol
from tracemill.compiler.backend.plain import run_python
from tracemill.compiler.kernel import KernelSource
from tracemill.runtime.loader import load_object

Launch = Callable[..., list[np.ndarray]]


class KernelFailed(Exception):
    """A kernel returned nonzero; carries its status words."""

    def __init__(self, status: np.ndarray) -> None:
        super().__init__(status.tolist())
        self.status = status.tolist()


def compiled(kernel: KernelSource) -> Callable[..., int]:
    """The kernel through Numba, called as the plain form is."""
    function = native(kernel)
    links = [ctypes.cast(native(link.kernel), ctypes.c_void_p).value for link in kernel.links]
    pointer = ctypes.c_void_p

    def call(
        buffers: list[np.ndarray],
        extents: np.ndarray,
        begin: int,
        end: int,
        scratch: np.ndarray,
        status: np.ndarray,
    ) -> int:
        words = [*links, *(b.ctypes.data for b in buffers)]
        table = (pointer * len(words))(*words)
        return function(table, extents.ctypes.data, begin, end, scratch.ctypes.data, status.ctypes.data)

    return call


def interpreted(kernel: KernelSource) -> Callable[..., int]:
    """The kernel as plain Python, with its links."""
    function = run_python(kernel.source, kernel.entry)
    links = [run_python(link.kernel.source, link.kernel.entry) for link in kernel.links]
    return lambda buffers, *rest: function([*links, *buffers], *rest)


def native(kernel: KernelSource) -> Any:
    """The kernel's code as a C function."""
    flags = CompileFlags(noalias=kernel.noalias)
    code = compile_source(kernel.source, kernel.entry, flags=flags)
    address = load_object(code, kernel_symbol(kernel.source, kernel.entry, flags))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    return ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, integer, integer, pointer, pointer)(address)


@pytest.fixture(scope="session")
def kernel_failed() -> type[KernelFailed]:
    """The exception that `launch` raises for a kernel that returns nonzero."""
    return KernelFailed


@pytest.fixture(scope="session")
def functions() -> dict[tuple[str, ...], Callable[..., int]]:
    return {}


@pytest.fixture
def launcher(functions: dict[tuple[str, ...], Callable[..., int]]) -> Callable[[str], Launch]:
    """`launcher(leg)`: the launch function of one leg (`plain` or `compiled`)."""
    return lambda leg: make_launch(leg, functions)


@pytest.fixture(params=["plain", "compiled"])
def launch(request: pytest.FixtureRequest, functions: dict[tuple[str, ...], Callable[..., int]]) -> Launch:
    """`launch(kernel, inputs, outputs, extents, steps, scratch_bytes, shares=1)` → the outputs."""
    return make_launch(request.param, functions)


def make_launch(leg: str, functions: dict[tuple[str, ...], Callable[..., int]]) -> Launch:
    def run(
        kernel: KernelSource,
        inputs: Sequence[np.ndarray],
        outputs: Sequence[tuple[tuple[int, ...], Any]],
        extents: Sequence[int],
        steps: int,
        scratch_bytes: int,
        shares: int = 1,
    ) -> list[np.ndarray]:
        assert len(extents) >= len(kernel.extents)  # a product has further ones for each batch axis
        assert len(inputs) + len(outputs) == kernel.n_buffers
        key = (leg, kernel.source, *(link.kernel.source for link in kernel.links))
        if key not in functions:
            functions[key] = interpreted(kernel) if leg == "plain" else compiled(kernel)
        results = [poisoned(shape, dtype) for shape, dtype in outputs]
        buffers = [np.ascontiguousarray(a).reshape(-1) for a in inputs] + [r.reshape(-1) for r in results]
        bounds = [steps * i // shares for i in range(shares + 1)]
        # Shares run last to first: nothing may depend on their order.
        for begin, end in reversed(list(pairwise(bounds))):
            scratch = aligned(scratch_bytes)
            status = np.zeros(4, np.int64)
            if functions[key](buffers, np.array(extents, np.int64), begin, end, scratch, status):
                raise KernelFailed(status)
        return results

    return run


def poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of bytes no kernel would leave: what it does not write is noticed."""
    result = np.empty(shape, dtype)
    result.reshape(-1).view(np.uint8)[:] = 0xA5
    return result


def aligned(size: int) -> np.ndarray:
    """Scratch memory as the executor gives it, filled with NaNs."""
    raw = np.full(size + 128, 0xFF, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]
