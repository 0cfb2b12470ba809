"""Parameters (`torch.nn.parameter`)."""

from __future__ import annotations

from ..frontends.python.tensor import Parameter

__all__ = ["Parameter"]
