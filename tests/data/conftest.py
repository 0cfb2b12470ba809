"""Batches come from host memory; what little is computed here runs on the reference interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRACEMILL_ENGINE", "interpret")
    yield
