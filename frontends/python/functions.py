"""Everything that registers public functions and tensor methods, imported once."""

from __future__ import annotations

from . import (
    autograd,
    compile,
    control,
    creation,
    function,
    hooks,
    indexing,
    ops_choice,
    ops_index,
    ops_join,
    ops_math,
    ops_matmul,
    ops_more,
    ops_reduce,
    ops_shape,
    ops_unary,
    printing,
    random,
    serialization,
    stats,
)
from .registry import FUNCTIONS, METHODS
from .tensor import attach

attach(METHODS)
FUNCTIONS["set_printoptions"] = printing.set_printoptions

__all__ = [
    "FUNCTIONS", "METHODS", "autograd", "compile", "control", "creation", "function", "hooks", "indexing",
    "ops_choice", "ops_index", "ops_join", "ops_math", "ops_matmul", "ops_more", "ops_reduce", "ops_shape", "ops_unary",
    "printing", "random", "serialization", "stats",
]
