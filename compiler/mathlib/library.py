"""The table of mathematical functions, their source text, and their compiled forms.

A function's dependencies (helpers and constants) are the global names its code mentions, resolved in its own
module, so that there is no second list to keep. All names of the library are distinct: any selection of it
may share one namespace.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import primitives

PRIMITIVE_NAMES = frozenset(function.__name__ for function in primitives.PRIMITIVES)
# Forced inlining lets LLVM vectorise the caller's loop; NumPy's error model makes a division one instruction.
JIT_OPTIONS: dict[str, Any] = {
    "forceinline": True,
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


@dataclass(frozen=True)
class MathFunction:
    """One function of one dtype: `python` takes and returns NumPy scalars of that dtype."""

    operator: str
    dtype: str
    python: Callable[..., Any]

    @property
    def name(self) -> str:
        """The name of the function in rendered source: `tm_exp_f32`."""
        return self.python.__name__

    @property
    def arity(self) -> int:
        """How many operands it takes: 1, or 2 for pow and atan2."""
        return self.python.__code__.co_argcount

    @property
    def needs(self) -> tuple[str, ...]:
        """The helpers and constants it uses, directly or not, each after those it uses itself."""
        order: dict[str, Any] = {}
        _collect(self.python, order)
        return tuple(name for name in order if name != self.name)

    @property
    def source(self) -> str:
        """Self-contained source text (NumPy and the primitives are imported by `render`)."""
        return _definitions([self.python])


def _globals_of(function: Any) -> Iterator[tuple[str, Any]]:
    """The library's own names that a function's code mentions, in order of mention."""
    for name in function.__code__.co_names:
        if name in function.__globals__ and name not in PRIMITIVE_NAMES and name != "np":
            yield name, function.__globals__[name]


def _collect(function: Any, order: dict[str, Any]) -> None:
    """Append a function to `order`, after everything that it needs."""
    if function.__name__ in order:
        return
    for name, value in _globals_of(function):
        if isinstance(value, types.FunctionType):
            _collect(value, order)
        elif name not in order:
            order[name] = value
    order[function.__name__] = function


def _literal(value: Any) -> str:
    """Source text of a constant."""
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()}, dtype=np.{value.dtype.name})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))},)"
    if isinstance(value, np.float32):
        text = f"{float(value):.9g}" if np.isfinite(value) else f"np.{value}"
        return f"np.float32({text})"
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else f"float(np.{value})"
    return repr(int(value))


def _plain_source(function: Any) -> str:
    """A function's text without its annotations, which would need names of their own."""
    (definition,) = ast.parse(inspect.getsource(function)).body
    assert isinstance(definition, ast.FunctionDef)
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    return ast.unparse(definition)


def _definitions(functions: Iterable[Any]) -> str:
    """Source text of functions and all that they need, once each."""
    order: dict[str, Any] = {}
    for function in functions:
        _collect(function, order)
    parts = []
    for name, value in order.items():
        is_function = isinstance(value, types.FunctionType)
        parts.append(f"\n\n{_plain_source(value)}\n\n" if is_function else f"{name} = {_literal(value)}")
    return "\n".join(parts) + "\n"


def _functions() -> dict[tuple[str, str], MathFunction]:
    """Every `tm_<operator>_<dtype>` of the modules, in their order."""
    from . import double, inverse, single, special, trigonometry, widened

    table = {}
    for module in (single, widened, double, trigonometry, inverse, special):
        for name, value in vars(module).items():
            if name.startswith("tm_") and value.__module__ == module.__name__:
                _, operator, dtype = name.split("_")
                table[operator, dtype] = MathFunction(operator, dtype, value)
    return table


FUNCTIONS: dict[tuple[str, str], MathFunction] = _functions()


def render(names: Iterable[tuple[str, str]]) -> str:
    """Source text of these functions, with what they need, in an order that depends on the set alone.

    Names are (operator, dtype), as ("exp", "f32"). The text goes to the top of a generated module and imports
    NumPy and the primitives itself; it is plain Python, and stands in the kernel's source so that it can be
    read, run and keyed. To compile the module, put `namespace(names)` over its globals: same functions, ready
    to be inlined.
    """
    chosen = [FUNCTIONS[name].python for name in sorted(set(names))]
    if not chosen:
        return ""
    imports = (
        "import numpy as np\n"
        "from tracemill.compiler.mathlib.primitives import (\n"
        f"    {', '.join(sorted(PRIMITIVE_NAMES))},\n)\n\n"
    )
    return imports + _definitions(chosen)


def namespace(names: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Numba dispatchers of these functions by name, to call from jitted code (compiled with
    error_model="numpy").

    They are shared by all kernels of the process, so that exp is typed and lowered once, not once a kernel.
    """
    return {FUNCTIONS[name].name: _dispatcher(FUNCTIONS[name].python) for name in sorted(set(names))}


@functools.cache
def _dispatcher(function: Any) -> Any:
    """A function of the library as a Numba dispatcher, its helpers dispatchers likewise."""
    import numba

    from . import lowering  # noqa: F401  (registers the primitives)

    scope = dict(function.__globals__)
    for name, value in _globals_of(function):
        if isinstance(value, types.FunctionType):
            scope[name] = _dispatcher(value)
    twin = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    return numba.njit(**JIT_OPTIONS)(twin)
