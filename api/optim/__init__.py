"""Optimizers (`torch.optim`)."""

from __future__ import annotations

from ..frontends.python.optim.optimizer import Optimizer
from ..frontends.python.optim.sgd import SGD

__all__ = ["SGD", "Optimizer"]
