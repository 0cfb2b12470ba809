"""The operator table, one module per family. Importing this package registers every operator."""

from . import (
    attention,
    contraction,
    control,
    core,
    elementwise,
    indexing,
    movement,
    ordering,
    random,
    reduction,
    symbolic,
    transcendental,
    window,
)

__all__ = [
    "attention",
    "contraction",
    "control",
    "core",
    "elementwise",
    "indexing",
    "movement",
    "ordering",
    "random",
    "reduction",
    "symbolic",
    "transcendental",
    "window",
]
