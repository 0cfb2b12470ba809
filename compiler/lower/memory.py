"""Hints about memory that generated kernels give: plain Python ignores them (`memory_llvm` has the compiled form)."""

from __future__ import annotations

from typing import Any


def prefetch(pointer: Any, index: Any) -> None:
    """Bring the cache line of an element near, soon to be read. The place need not exist."""


def _register() -> None:
    from . import memory_llvm  # noqa: F401  (registers it)


vars(prefetch)["register_numba"] = _register

__all__ = ["prefetch"]
