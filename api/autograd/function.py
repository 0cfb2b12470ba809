"""Custom functions (`torch.autograd.function`)."""

from __future__ import annotations

from ..frontends.python.function import Function, FunctionCtx, once_differentiable

__all__ = ["Function", "FunctionCtx", "once_differentiable"]
