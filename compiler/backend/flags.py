"""What, besides its source, decides a kernel's code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompileFlags:
    """Aliasing of a kernel's operands, and how much is left to LLVM.

    Attributes:
        noalias: no two operands overlap, except as `in_place` says.
        in_place: pairs (input slot, output slot) that are the same memory; both are then read through one
            pointer, so that LLVM sees the same element at the same index and still vectorises.
        vectorised: the work is done by vector primitives; LLVM cleans up and leaves the loops as they are.
    """

    noalias: bool = True
    in_place: tuple[tuple[int, int], ...] = ()
    vectorised: bool = False

    def key(self) -> str:
        """Canonical text for cache keys."""
        pairs = ",".join(f"{a}={b}" for a, b in sorted(self.in_place))
        return f"noalias={int(self.noalias)} in_place={pairs}{' vectorised' if self.vectorised else ''}"


def code_of(source: str) -> str:
    """A generated source without the comments at its head: they name operators, and kernels of different operators may
    be the same code."""
    while source.startswith("#"):
        source = source.partition("\n")[2]
    return source


def kernel_symbol(source: str, entry: str, flags: CompileFlags | None = None) -> str:
    """The exported name of a kernel: from its code, so that equal kernels have equal names everywhere."""
    content = "\0".join((code_of(source), entry, (flags or CompileFlags()).key()))
    return "tm_" + hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
