"""Seconds spent on compilation, by part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Spent:
    """Seconds of all compilations, those of helper processes added up.

    Attributes:
        numba: Python source to LLVM IR, and its text.
        llvm: optimisation and machine code.
    """

    numba: float = 0.0
    llvm: float = 0.0

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Add the time of a `with` block to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - started)


SPENT = Spent()
