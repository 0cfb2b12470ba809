"""A counter of everything that a captured function may depend on besides tensors.

Writing a plain attribute of a module, registering a module, parameter, buffer or hook, and train/eval bump it;
`tm.compile` compares one integer instead of walking the modules.
"""

from __future__ import annotations

_count = 0


def bump() -> None:
    """Something that a captured function may have read has changed."""
    global _count
    _count += 1


def current() -> int:
    """The number of changes so far."""
    return _count
