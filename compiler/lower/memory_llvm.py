"""Numba's view of `memory`. Imported on cold paths only; importing it registers everything."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.extending import lower_builtin

from ..backend.lowering import typed_by
from . import memory

_READ, _KEEP, _DATA = (ir.Constant(ir.IntType(32), k) for k in (0, 3, 1))


def _type_prefetch(*args: Any) -> Any:
    if len(args) == 2 and isinstance(args[0], types.CPointer) and isinstance(types.unliteral(args[1]), types.Integer):
        return signature(types.none, args[0], types.int64)
    return None


@lower_builtin(memory.prefetch, types.CPointer, types.Integer)
def _prefetch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    place = builder.bitcast(builder.gep(args[0], [args[1]]), cgutils.voidptr_t)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[ir.IntType(32)] * 3])
    called = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(called, [place, _READ, _KEEP, _DATA])
    return context.get_dummy_value()


typed_by(memory.prefetch, _type_prefetch)
