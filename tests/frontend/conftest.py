"""The frontend's tests run on the reference interpreter: they are about what is recorded, not about kernels.

`TRACEMILL_TEST_ENGINE=compiled` runs them on compiled kernels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tracemill.frontends.python import stats
from tracemill.frontends.python.flush import flush
from tracemill.frontends.python.random import manual_seed
from tracemill.frontends.python.trace import TRACE


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing pending before or after, counters at zero, a fixed seed."""
    monkeypatch.setenv("TRACEMILL_ENGINE", os.environ.get("TRACEMILL_TEST_ENGINE", "interpret"))
    flush("test")
    stats.reset()
    manual_seed(0)
    TRACE.grad = True
    yield
    TRACE.grad = True
    flush("test")
