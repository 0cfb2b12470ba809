"""The base of optimizers (`torch.optim.optimizer`)."""

from __future__ import annotations

from ..frontends.python.optim.optimizer import Optimizer

__all__ = ["Optimizer"]
