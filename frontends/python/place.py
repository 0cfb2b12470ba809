"""Where an operator comes from: the user's line and the module scope.

The user's line is the innermost Python frame outside tracemill. Places are interned per code position, so that the
same line of a loop yields the same object (nodes key by it) and a look-up costs a few dictionary probes.
"""

from __future__ import annotations

import sys
from types import CodeType

from ...ir.errors import Location
from ...ir.node import Place

_PACKAGE = __name__.split(".", 1)[0]
# id(code) -> (code kept alive, whether it belongs to tracemill)
_codes: dict[int, tuple[CodeType, bool]] = {}
_places: dict[tuple[int, int, str], Place] = {}
# Calls of modules of other packages that belong to a user's line nevertheless (functools wrappers and the like).
_TRANSPARENT = ("functools", "contextlib", "runpy", "importlib._bootstrap")

_scope: str = ""


def here(depth: int = 2) -> Place:
    """The place of the caller `depth` frames up, walking out of tracemill's own frames."""
    frame = sys._getframe(depth)
    while True:
        code = frame.f_code
        known = _codes.get(id(code))
        if known is None:
            name = frame.f_globals.get("__name__") or ""
            internal = name == _PACKAGE or name.startswith(_PACKAGE + ".") or name in _TRANSPARENT
            known = _codes[id(code)] = (code, internal)
        if not known[1]:
            break
        back = frame.f_back
        if back is None:
            break
        frame = back
    key = (id(code), frame.f_lasti, _scope)
    place = _places.get(key)
    if place is None:
        place = _places[key] = Place(Location(code.co_filename, frame.f_lineno or 0), _scope)
    return place


def location(depth: int = 2) -> Location | None:
    """The user's line alone."""
    return here(depth + 1).location


def scope() -> str:
    """The current module path (`layers.0.linear`)."""
    return _scope


def enter_scope(path: str) -> str:
    """Make `path` the current module scope and return the one before; `nn.Module.__call__` brackets `forward` with it:

    >>> before = enter_scope("layers.0")
    >>> enter_scope(before)
    'layers.0'
    """
    global _scope
    before, _scope = _scope, path
    return before
