"""Calls of kernels through the C ABI, compiled and as plain Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tracemill.compiler.backend import numba_cpu, plain
from tracemill.compiler.backend.flags import CompileFlags
from tracemill.runtime.loader import load_object

Run = Callable[..., tuple[int, list[int]]]
PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
)


def call_address(
    address: int, buffers: Sequence[Any], extents: Sequence[int], begin: int, end: int, scratch: int = 4096
) -> tuple[int, list[int]]:
    """Call a kernel by its address; (result, status)."""
    table = (ctypes.c_void_p * max(len(buffers), 1))(*[b.ctypes.data for b in buffers])
    sizes = np.array(list(extents) or [0], np.int64)
    room = np.zeros(scratch + 64, np.uint8)
    start = -room.ctypes.data % 64
    status = np.zeros(4, np.int64)
    code = PROTOTYPE(address)(
        ctypes.addressof(table), sizes.ctypes.data, begin, end, room.ctypes.data + start, status.ctypes.data
    )
    return code, status.tolist()


@pytest.fixture
def call() -> Run:
    return call_address


@pytest.fixture
def compiled() -> Run:
    def run(
        source: str, buffers: Any, extents: Any, begin: int, end: int, *, entry: str = "kernel", **flags: Any
    ) -> Any:
        options = CompileFlags(**flags)
        data = numba_cpu.compile_source(source, entry, flags=options)
        address = load_object(data, numba_cpu.kernel_symbol(source, entry, options))
        return call_address(address, buffers, extents, begin, end)

    return run


@pytest.fixture
def interpreted() -> Run:
    def run(source: str, buffers: Any, extents: Any, begin: int, end: int, *, entry: str = "kernel") -> Any:
        status = np.zeros(4, np.int64)
        code = plain.run_python(source, entry)(
            list(buffers), np.array(extents, np.int64), begin, end, np.zeros(4096, np.uint8), status
        )
        return code, status.tolist()

    return run
