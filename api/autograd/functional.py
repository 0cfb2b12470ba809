"""Jacobians and products with them (`torch.autograd.functional`)."""

from __future__ import annotations

from ..frontends.python.autograd_functional import hessian, hvp, jacobian, jvp, vjp

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]
