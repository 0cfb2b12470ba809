"""Handles of registered hooks."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from types import TracebackType
from typing import Any

from .. import version

_ids = itertools.count()


class RemovableHandle:
    """What `register_…_hook` returns: `remove()` takes the hook away; also a context manager."""

    def __init__(self, hooks: OrderedDict[int, Any]) -> None:
        self.id = next(_ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook away (once; a second call does nothing)."""
        if self._hooks.pop(self.id, None) is not None:
            version.bump()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.remove()


def register(hooks: OrderedDict[int, Any], hook: Any, prepend: bool = False) -> RemovableHandle:
    """Add a hook to a table of hooks."""
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    version.bump()
    return handle
