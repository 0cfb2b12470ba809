"""Python's cyclic garbage collector, kept off work that only builds."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Hold off the collector: passes and lowering build graphs that are in use, and it would walk over them again and
    again (a fifth of lowering)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
