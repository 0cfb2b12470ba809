"""A generated kernel before it is compiled: its source text and what a caller has to know to launch it.

Every generator (fused loops, contractions, windows, scatters) returns a `KernelSource`. The text is the plain
Python subset that Numba compiles and that runs as Python too. Kernels are deduplicated and cached by their
text, so a generator must produce the same text for the same structure and must not name sizes, nodes or
places in it.
"""

from __future__ import annotations

from dataclasses import dataclass

# Codes a kernel writes to `status[0]`; `status[2]` is the offending index, `status[3]` the extent it had to
# be below.
STATUS_OK = 0
STATUS_INDEX = 1


@dataclass(frozen=True, slots=True)
class Link:
    """A kernel that another one calls itself, by an address in front of its own operands.

    It has the kernel ABI and sees a part of the caller's arguments: the operands from number `first` on, and the
    extents from where the caller says. `begin`, `end`, `scratch` and `status` are what the caller gives them for; a
    linked kernel cannot fail.

    Attributes:
        kernel: the callee.
        first: the caller's operand that is the callee's first.
    """

    kernel: KernelSource
    first: int


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One kernel's text with its launch contract.

    Attributes:
        entry: name of the kernel function in `source`, called as
            `entry(buffers, extents, begin, end, scratch, status) -> int`.
        source: the module text.
        n_buffers: operands, inputs then outputs, without the addresses of links.
        extents: what each int64 extent means, in order (documentation and plan listings).
        fallible: the kernel may write `status` and return nonzero.
        noalias: no two operands overlap (outputs are never written over inputs), so loads may be hoisted.
        vectorised: vector primitives do the work, so that LLVM need not look for loops to turn into vectors.
        links: kernels that this one calls; entry i of `buffers` is the address of link i, the operands follow.
    """

    entry: str
    source: str
    n_buffers: int
    extents: tuple[str, ...]
    fallible: bool = False
    noalias: bool = True
    vectorised: bool = False
    links: tuple[Link, ...] = ()
