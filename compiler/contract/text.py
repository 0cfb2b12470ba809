"""Small tools to write kernel sources: templates with blocks, element access by dtype, calls of epilogues."""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import dedent, indent

from ...ir.dtypes import DType
from ..kernel import KernelSource, Link

_BLOCK = re.compile(r"^([ ]*)\$(\w+)[ ]*$", re.MULTILINE)
_INLINE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def fill(template: str, **values: object) -> str:
    """`template`, dedented, with `$name` and `${name}` replaced.

    A `$name` alone on its line takes a block of any number of lines at its own indentation (none: the line
    goes).
    """

    def block(match: re.Match[str]) -> str:
        text = dedent(str(values[match[2]])).strip("\n")
        return indent(text, match[1]) if text else "\0"

    text = _BLOCK.sub(block, dedent(template).strip("\n") + "\n").replace("\0\n", "")
    return _INLINE.sub(lambda match: str(values[match[1] or match[2]]), text)


def extent_loads(names: tuple[str, ...]) -> str:
    """Lines that read every extent into a variable of its name."""
    return "\n".join(f"{name} = extents[{i}]" for i, name in enumerate(names))


def storage(dtype: DType) -> str:
    """The name under which pointers to the dtype's storage go: sixteen-bit floats are stored as `u16`."""
    return "u16" if dtype.name in ("f16", "bf16") else dtype.name


def load(dtype: DType, pointer: str, index: str) -> str:
    """Expression: one element in its compute dtype."""
    return f"{dtype}_to_f32({pointer}[{index}])" if storage(dtype) == "u16" else f"{pointer}[{index}]"


def store(dtype: DType, pointer: str, index: str, value: str) -> str:
    """Statement: write one element given in its compute dtype."""
    return (
        f"{pointer}[{index}] = f32_to_{dtype}({value})" if storage(dtype) == "u16" else f"{pointer}[{index}] = {value}"
    )


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Fused work on finished tiles of a contraction's result, while they are in the cache: a kernel of its own that
    the contraction calls.

    Attributes:
        source: module text with `def epilogue(buffers, extents, m0, m1, values, tile)`, which begins with
            `tile_loads`: for every m in `[m0, m1)` and n in `[n0, n1)` it reads the result (in the compute
            dtype) at `acc[(m - m0) * acc_stride + n - n0]` and writes its outputs. It returns 0, it must not
            write to `acc`.
        n_buffers: its operands, inputs then outputs: those of the contraction behind its own two.
        extents: names of its extents, which follow the contraction's own.
    """

    source: str
    n_buffers: int
    extents: tuple[str, ...] = ()

    def link(self, first: int) -> Link:
        """For a contraction whose operand number `first` is this epilogue's first."""
        return Link(KernelSource("epilogue", self.source, self.n_buffers, self.extents), first)


EPILOGUE_SIGNATURE = "def epilogue(buffers, extents, m0, m1, values, tile):"


def tile_loads(compute: DType) -> tuple[str, ...]:
    """The first lines of an epilogue: `acc`, `acc_stride`, `b`, `n0`, `n1` from its arguments."""
    return f"acc = {compute}_at(values, 0)", "b = tile[0]", "n0 = tile[1]", "n1 = tile[2]", "acc_stride = tile[3]"


def call_epilogue(
    acc: str, stride: str, b: str, m: tuple[str, str], n: tuple[str, str], own_extents: str, own_operands: int
) -> str:
    """Lines that call link 0 of a kernel, an epilogue, for one finished tile.

    Args:
        acc: pointer to the value of the tile's first element.
        stride: elements from one row of the tile to the next.
        b, m, n: batch entry, rows and columns of the tile.
        own_extents: how many extents the kernel has itself.
        own_operands: how many operands; its links come before them.
    """
    return fill(
        _CALL, acc=acc, stride=stride, b=b, n0=n[0], n1=n[1], m0=m[0], m1=m[1], extents=own_extents,
        first=own_operands + 1,
    )  # fmt: skip


_CALL = """
tile = local_i64(4)
tile[0] = $b
tile[1] = $n0
tile[2] = $n1
tile[3] = $stride
call_link(buffers, 0, $first, extents, $extents, $m0, $m1, $acc, tile)
"""
