"""Transcendental functions as plain arithmetic: no libm, no FMA, no branches where vectors matter, the same
bits everywhere.

Each is an ordinary Python function on NumPy scalars, accurate to 2 ULP over its whole range
(docs/accuracy.md), which Numba compiles to code that LLVM vectorises. `FUNCTIONS` is the table, `render`
gives source text, `namespace` compiled forms.
"""

from .library import FUNCTIONS, MathFunction, namespace, render

__all__ = ["FUNCTIONS", "MathFunction", "namespace", "render"]
