"""`compile_source` and `emit`: generated Python source → object code, LLVM IR or assembly for the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Literal

from ...ir.errors import InternalError, TracemillError
from ...runtime import blas, elf
from . import llvm
from .flags import CompileFlags, kernel_symbol
from .plain import load_source
from .spent import SPENT

__all__ = ["CompileFlags", "compile_function", "compile_source", "emit", "kernel_symbol"]

# What kernels may call outside themselves: what LLVM calls where a CPU has no fused multiply-add (contractions are
# slow there, and have the same bits), and a BLAS.
EXTERNALS = ("fma", "fmaf", *blas.SYMBOLS)
_lock = threading.RLock()


def _optimised(source: str, entry: str, flags: CompileFlags, where: llvm.Target) -> tuple[Any, str]:
    from numba.core.errors import NumbaError

    from .frontend import lower_entry

    symbol = kernel_symbol(source, entry, flags)
    function = load_source(source, entry)
    try:
        with SPENT.on("numba"):
            texts = [str(module) for module in lower_entry(function, symbol, flags)]
    except NumbaError as error:
        raise InternalError(
            f"Numba cannot compile the generated kernel {entry!r}: {error}", hint=_numbered(source)
        ) from error
    with SPENT.on("llvm"):
        return llvm.optimise(texts, symbol, where, light=flags.vectorised), symbol


def _numbered(source: str) -> str:
    return "its source:\n" + "\n".join(f"{n:4} {line}" for n, line in enumerate(source.splitlines(), 1))


def compile_source(
    source: str,
    entry: str,
    *,
    flags: CompileFlags | None = None,
    externals: Iterable[str] = EXTERNALS,
    cpu: str | None = None,
) -> bytes:
    """Compile a generated source to a relocatable ELF object that exports `kernel_symbol(source, entry,
    flags)`.

    The entry has the kernel ABI `int32 (void** buffers, const int64* extents, int64 begin, int64 end, void*
    scratch, int64* status)`. No fast-math, no contraction of multiply and add; the object calls nothing
    outside itself.

    Args:
        source: text of a Python module over `backend.intrinsics`.
        entry: the function to export.
        flags: aliasing of the operands.
        externals: C symbols that the object may leave undefined, for the loader to resolve.
        cpu: LLVM CPU name; by default `TRACEMILL_CPU` or the host.

    Raises:
        InternalError: the source cannot be compiled, or the object needs symbols that are not in `externals`.
        TracemillError: the CPU is not known.
    """
    where = llvm.target(cpu)
    with _lock:
        module, symbol = _optimised(source, entry, flags or CompileFlags(), where)
        with SPENT.on("llvm"):
            data = llvm.emit_object(module, where)
    try:
        loose = sorted(set(elf.read(data).undefined()) - set(externals))
    except elf.ElfError as error:
        raise InternalError(f"LLVM produced an object that cannot be read: {error}") from error
    if loose:
        raise InternalError(
            f"the kernel {entry!r} ({symbol}) needs symbols outside itself: {', '.join(loose)}",
            hint=_numbered(source),
        )
    return data


def compile_function(
    function: Any, args: tuple[Any, ...], restype: Any, symbol: str, cpu: str | None = None
) -> bytes:
    """Compile a Python function that is no kernel (Numba types of arguments and result) to an object.

    Raises:
        InternalError: it cannot be compiled.
        TracemillError: the CPU is not known.
    """
    from numba.core.errors import NumbaError

    from .frontend import lower_function

    where = llvm.target(cpu)
    with _lock:
        try:
            with SPENT.on("numba"):
                texts = [str(module) for module in lower_function(function, args, restype, symbol)]
        except NumbaError as error:
            raise InternalError(f"Numba cannot compile {function.__name__!r}: {error}") from error
        with SPENT.on("llvm"):
            return llvm.emit_object(llvm.optimise(texts, symbol, where), where)


def emit(
    source: str,
    entry: str,
    kind: Literal["llvm", "asm"] = "llvm",
    *,
    flags: CompileFlags | None = None,
    cpu: str | None = None,
) -> str:
    """The optimised LLVM IR (`llvm`) or the assembly (`asm`) of a generated source, for people to read."""
    if kind not in ("llvm", "asm"):
        raise TracemillError(f"emit: kind {kind!r} is neither 'llvm' nor 'asm'")
    where = llvm.target(cpu)
    with _lock:
        module, _ = _optimised(source, entry, flags or CompileFlags(), where)
        return str(module) if kind == "llvm" else llvm.emit_assembly(module, where)
