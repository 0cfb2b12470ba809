"""Text of the IR: `print_graph` and `parse_graph`, with `parse_graph(print_graph(g)) == g`."""

from __future__ import annotations

from typing import Any

from ..graph import Graph
from .printer import print_graph


def parse_graph(text: str, constants: Any = None, file: str = "<ir>") -> Graph:
    """The graph of a text. See `parser.parse_graph` (lark is imported only when something is parsed)."""
    from .parser import parse_graph as parse

    return parse(text, constants, file)


__all__ = ["parse_graph", "print_graph"]
