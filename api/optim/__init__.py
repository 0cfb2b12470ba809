"""Optimizers (`torch.optim`)."""

from __future__ import annotations

from ..frontends.python.optim.adagrad import Adagrad
from ..frontends.python.optim.adam import Adam, AdamW
from ..frontends.python.optim.optimizer import Optimizer
from ..frontends.python.optim.rmsprop import RMSprop
from ..frontends.python.optim.sgd import SGD
from . import lr_scheduler

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
