"""The library's functions on whole arrays and on LLVM vectors, from the one text that also serves scalars.

A function of the library is arithmetic and primitives without branches. Called with other primitives under the same
names, and with operands whose arithmetic means something else, the same code computes arrays or writes vector
instructions. All three give the same bits.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from ..contract.softfma import fma_f32
from .library import FUNCTIONS, PRIMITIVE_NAMES
from .primitives import horner, two_chains


def retargeted(function: Callable[..., Any], primitives: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """A twin of a library function, its helpers retargeted likewise, that calls other primitives.

    Args:
        primitives: by name; "np", if given, stands for NumPy (its scalar types, which convert).

    Raises KeyError for a primitive that `primitives` lacks, when it is called.
    """
    made: dict[Any, Any] = {}

    def twin(original: Any) -> Any:
        if original not in made:
            scope = dict(original.__globals__)
            made[original] = types.FunctionType(original.__code__, scope, original.__name__, original.__defaults__)
            for name in original.__code__.co_names:
                value = scope.get(name)
                if name in PRIMITIVE_NAMES or (name == "np" and name in primitives):
                    scope[name] = primitives[name]
                elif isinstance(value, types.FunctionType):
                    scope[name] = twin(value)
        return made[original]

    return twin(function)  # type: ignore[no-any-return]


_ON_ARRAYS: Mapping[str, Callable[..., Any]] = {
    "select": np.where,
    "horner": horner,
    "polynomial": partial(two_chains, operator.mul, fma_f32),
    "fma_f32": fma_f32,
    "f32_bits": lambda x: x.view(np.int32),
    "bits_f32": lambda x: x.astype(np.int32).view(np.float32),
    "f64_bits": lambda x: x.view(np.int64),
    "bits_f64": lambda x: x.astype(np.int64).view(np.float64),
    "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "copysign": np.copysign,
    "sqrt_f32": np.sqrt, "sqrt_f64": np.sqrt,
}  # fmt: skip


@cache
def on_arrays(operator: str, dtype: str) -> Callable[..., Any]:
    """A function of the library on NumPy arrays of its dtype."""
    twin = retargeted(FUNCTIONS[operator, dtype].python, _ON_ARRAYS)

    def call(*operands: Any) -> Any:
        with np.errstate(all="ignore"):
            return twin(*operands)

    return call
