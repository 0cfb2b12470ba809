"""Layers, losses and containers (`torch.nn`)."""

from __future__ import annotations

from ..frontends.python.nn.linear import Bilinear, Identity, Linear
from ..frontends.python.nn.loss import MSELoss
from ..frontends.python.nn.module import Module
from ..frontends.python.tensor import Parameter
from . import init

__all__ = ["Bilinear", "Identity", "Linear", "MSELoss", "Module", "Parameter", "init"]
