"""Loading objects: our linker and LLVM's, and what neither may accept."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from tracemill.compiler.backend import llvm as backend
from tracemill.compiler.backend import numba_cpu
from tracemill.ir.errors import InternalError
from tracemill.runtime import elf, loader

SOURCE = """
from tracemill.compiler.backend.intrinsics import f64, f64_ptr, i64_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    x = f64_ptr(buffers, 0)
    k = i64_ptr(buffers, 1)
    for i in range(begin, end):
        if k[i] == 0:
            x[i] = f64(1.25)
        elif k[i] == 1:
            x[i] = f64(-7.5)
        elif k[i] == 2:
            x[i] = f64(1e300)
        elif k[i] == 3:
            x[i] = x[i] * f64(0.1) + f64(3.0)
        elif k[i] == 4:
            x[i] = f64(4.75)
        else:
            x[i] = f64(0.3)
    return 0
"""
WANT = [1.25, -7.5, 1e300, 0.2 * 0.1 + 3.0, 4.75, 0.3]


def assemble(text: str, machine: dict[str, Any] | None = None) -> bytes:
    """LLVM text → object."""
    backend.target_machine(backend.target())
    target = llvm.Target.from_triple(llvm.get_process_triple())
    module = llvm.parse_assembly(text)
    return bytes(
        target.create_target_machine(**(machine or {"reloc": "pic", "codemodel": "default"})).emit_object(
            module
        )
    )


@pytest.fixture(scope="module")
def kernel() -> tuple[bytes, str]:
    return numba_cpu.compile_source(SOURCE, "kernel"), numba_cpu.kernel_symbol(SOURCE, "kernel")


@pytest.mark.parametrize("how", ["load_object", "_load_with_llvm"])
def test_both_linkers_run_kernels(how: str, kernel: tuple[bytes, str], call: Any) -> None:
    x, k = np.full(6, 0.2), np.arange(6)
    assert call(getattr(loader, how)(*kernel), [x, k], [], 0, 6) == (0, [0, 0, 0, 0])
    assert x.tolist() == WANT


def test_equal_objects_are_loaded_once(kernel: tuple[bytes, str]) -> None:
    data, symbol = kernel
    assert loader.load_object(data, symbol) == loader.load_object(bytes(bytearray(data)), symbol)


def test_a_fresh_process_loads_with_neither_numba_nor_llvmlite(
    kernel: tuple[bytes, str], tmp_path: Path
) -> None:
    path = tmp_path / "kernel.o"
    path.write_bytes(kernel[0])
    program = (
        "import sys; from tracemill.runtime.loader import load_object, _load_with_llvm\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "assert load_object(data, sys.argv[2])\n"
        "print([m for m in ('numba', 'llvmlite') if m in sys.modules])\n"
        "assert _load_with_llvm(data, sys.argv[2])\n"
        "print([m for m in ('numba',) if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, str(path), kernel[1]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]" if sys.platform == "linux" else "['llvmlite']", "[]"]


EXTERNAL = """
declare i64 @labs(i64)
declare i32 @getpid()
@where = external global i8
define i64 @f(i64 %x) {
  %y = call i64 @labs(i64 %x)
  %p = call i32 @getpid()
  %q = sext i32 %p to i64
  %z = add i64 %y, %q
  ret i64 %z
}
define ptr @g() { ret ptr @labs }
"""


@pytest.mark.parametrize(
    "machine",
    [
        {"reloc": "pic", "codemodel": "default"},
        {"reloc": "static", "codemodel": "jitdefault", "jit": True},
        {"reloc": "pic", "codemodel": "small"},
    ],
)
def test_symbols_of_the_c_library_are_found(machine: dict[str, Any]) -> None:
    import os

    data = assemble(EXTERNAL.replace("@where = external global i8\n", ""), machine)
    assert sorted(set(elf.read(data).undefined()) - {"_GLOBAL_OFFSET_TABLE_"}) == ["getpid", "labs"]
    address = loader.load_object(data, "f")
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(-5) == 5 + os.getpid()
    where = ctypes.CFUNCTYPE(ctypes.c_void_p)(loader.load_object(data, "g"))()
    assert where == ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value


def test_writable_data_goes_to_llvm() -> None:
    data = assemble(
        """
@count = internal global i64 40
define i64 @f() {
  %x = load i64, ptr @count
  %y = add i64 %x, 1
  store i64 %y, ptr @count
  ret i64 %y
}
define void @set(i64 %x) {
  store i64 %x, ptr @count
  ret void
}
"""
    )
    function = ctypes.CFUNCTYPE(ctypes.c_int64)(loader.load_object(data, "f"))
    assert [function(), function()] == [41, 42]


def test_a_missing_symbol_is_an_error_not_the_end(kernel: tuple[bytes, str]) -> None:
    data = assemble(
        "declare i64 @no_such_function(i64)\n"
        "define i64 @f() {\n  %x = call i64 @no_such_function(i64 1)\n  ret i64 %x\n}\n"
    )
    with pytest.raises(InternalError, match="no symbol no_such_function"):
        loader.load_object(data, "f")
    with pytest.raises(InternalError, match="does not define"):
        loader.load_object(kernel[0], "other")


def test_damaged_objects_are_refused_or_harmless(kernel: tuple[bytes, str]) -> None:
    data, symbol = kernel
    for size in range(0, len(data), 7):
        with pytest.raises(InternalError):
            loader.load_object(data[:size], symbol)
    with pytest.raises(InternalError, match="not a little-endian"):
        loader.load_object(b"#!/bin/sh\n" + data, symbol)
    with pytest.raises(InternalError, match="another architecture"):
        loader.load_object(data[:18] + b"\x08\x00" + data[20:], symbol)
    random = np.random.default_rng(0)
    for _ in range(300):  # never called, only parsed and linked
        bad = bytearray(data)
        for at in random.integers(0, len(data), 3):
            bad[at] ^= int(random.integers(1, 256))
        with contextlib.suppress(elf.ElfError, InternalError, loader._Unusual):
            loader._Linker(elf.read(bytes(bad)), {})


def test_undefined_and_defined_symbols(kernel: tuple[bytes, str]) -> None:
    parsed = elf.read(kernel[0])
    assert parsed.undefined() == [] and parsed.defined() == [kernel[1]]
