"""A progress bar for the examples: rich where a terminal shows it, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any


def track(items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
    """Yield from `items` while showing how far the loop has come."""
    if not sys.stdout.isatty():
        yield from items
        return
    from rich.progress import track as rich_track

    if total is None:
        total = len(items)  # type: ignore[arg-type]
    yield from rich_track(items, description=description, total=total)
