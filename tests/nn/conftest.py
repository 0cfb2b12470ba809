"""Layers are checked on the reference interpreter: their kernels are tested elsewhere, and this starts at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRACEMILL_ENGINE", "interpret")
    yield
