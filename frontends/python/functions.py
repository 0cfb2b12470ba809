"""Everything that registers public functions and tensor methods, imported once."""

from __future__ import annotations

from . import (
    autograd,
    compile,
    control,
    creation,
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
from . import function as custom_function
from .registry import FUNCTIONS, METHODS, function
from .tensor import attach

attach(METHODS)
FUNCTIONS["set_printoptions"] = printing.set_printoptions

__all__ = [
    "FUNCTIONS", "METHODS", "autograd", "compile", "control", "creation", "custom_function", "hooks", "indexing",
    "ops_choice", "ops_index", "ops_join", "ops_math", "ops_matmul", "ops_more", "ops_reduce", "ops_shape", "ops_unary",
    "printing", "random", "serialization", "stats",
]


@function()
def set_float32_matmul_precision(precision: str) -> None:
    """Accepted for PyTorch's sake: contractions are float32 throughout."""


@function()
def get_float32_matmul_precision() -> str:
    """The precision of float32 contractions."""
    return "highest"


@function()
def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted for PyTorch's sake: results are deterministic always."""


@function()
def are_deterministic_algorithms_enabled() -> bool:
    """Whether results are deterministic."""
    return True
