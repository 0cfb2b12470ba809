"""What the lowering raises towards the fusion pass."""

from __future__ import annotations

from ...ir.errors import InternalError


class CannotLower(InternalError):
    """A group that no kernel template covers. The fusion pass answers by not forming it."""
