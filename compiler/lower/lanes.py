"""The lanes of a reduction as a whole: clearing them, and folding them by the fixed tree.

`lanes` is a local array of sixteen. Plain NumPy here, one vector instruction each when compiled (`lanes_llvm`); as
loops in the source they would be most of what Numba has to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend.intrinsics import select

LANES = 16


def clear_lanes(lanes: Any, value: Any) -> None:
    """Set every lane to a value."""
    lanes[:LANES] = value


def _folded(name: str, merge: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def fold(lanes: Any) -> Any:
        width = LANES // 2
        while width:
            for lane in range(width):
                lanes[lane] = merge(lanes[lane], lanes[lane + width])
            width //= 2
        return lanes[0]

    fold.__name__ = fold.__qualname__ = name
    fold.__doc__ = "The lanes folded: lane i with i + 8, then i + 4, i + 2, i + 1. They are spent afterwards."
    return fold


sum_lanes = _folded("sum_lanes", lambda a, b: type(a)(a + b))
prod_lanes = _folded("prod_lanes", lambda a, b: type(a)(a * b))
max_lanes = _folded("max_lanes", lambda a, b: select((b > a) | (b != b), b, a))
min_lanes = _folded("min_lanes", lambda a, b: select((b < a) | (b != b), b, a))
any_lanes = _folded("any_lanes", lambda a, b: np.bool_(a | b))
all_lanes = _folded("all_lanes", lambda a, b: np.bool_(a & b))

FOLDS = (sum_lanes, prod_lanes, max_lanes, min_lanes, any_lanes, all_lanes)


def _register() -> None:
    from . import lanes_llvm  # noqa: F401  (registers all of them)


for _function in (clear_lanes, *FOLDS):
    vars(_function)["register_numba"] = _register

__all__ = [
    "LANES", "all_lanes", "any_lanes", "clear_lanes", "max_lanes", "min_lanes", "prod_lanes", "sum_lanes",
]  # fmt: skip
