"""Generated sources as plain Python: the same text, no Numba.

One leg of the differential tests, and the loader of sources for the compiler.
"""

from __future__ import annotations

import builtins
import hashlib
import linecache
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...ir.errors import InternalError
from . import intrinsics

# The `__name__` of every generated module.
SOURCE_MODULE = "tracemill_kernel"
KernelFunction = Callable[[Any, Any, int, int, Any, Any], int]


def load_source(source: str, entry: str) -> Any:
    """Execute a generated module and return its entry function.

    Names that the source uses without importing them are looked up among the intrinsics and the primitives
    of contractions.

    Raises:
        InternalError: the source has no such entry, or uses a name that nothing defines.
    """
    filename = f"<kernel {hashlib.blake2b(source.encode(), digest_size=6).hexdigest()}>"
    module = types.ModuleType(SOURCE_MODULE)
    module.__file__ = filename
    code = compile(source, filename, "exec")
    # Readable tracebacks from kernels run as plain Python.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(code, module.__dict__)
    function = module.__dict__.get(entry)
    if not isinstance(function, types.FunctionType):
        raise InternalError(f"the generated source defines no function {entry!r}")
    _complete_namespace(function)
    return function


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _complete_namespace(entry: Any) -> None:
    namespace = entry.__globals__
    own = [v for v in namespace.values() if isinstance(v, types.FunctionType) and v.__globals__ is namespace]
    for name in sorted({name for function in own for name in _names(function.__code__)}):
        if name not in namespace and not hasattr(builtins, name):
            found = _lookup(name)
            if found is not None:
                namespace[name] = found


def _lookup(name: str) -> Any:
    """What a name means that a source does not import: an intrinsic or a primitive of contractions."""
    if name in intrinsics.__all__:
        return getattr(intrinsics, name)
    from ..contract.primitives import primitive

    return primitive(name)


def run_python(source: str, entry: str) -> KernelFunction:
    """The kernel as plain Python.

    The result takes the arguments of the kernel ABI: a list of flat arrays for `buffers` (any dtype; pointers
    view it), an int64 array for `extents`, ints, a uint8 array for `scratch`, an int64[4] array for `status`.
    Arithmetic overflows and NaN are silent, as in compiled code.
    """
    function = load_source(source, entry)

    def kernel(buffers: Any, extents: Any, begin: int, end: int, scratch: Any, status: Any) -> int:
        with np.errstate(all="ignore"):
            return int(function(buffers, extents, begin, end, scratch, status))

    return kernel
