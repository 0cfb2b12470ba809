"""Automatic differentiation (`torch.autograd`)."""

from __future__ import annotations

from ..frontends.python.autograd import (
    Variable,
    detect_anomaly,
    enable_grad,
    grad,
    inference_mode,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from ..frontends.python.autograd import run_backward as backward
from ..frontends.python.function import Function
from . import function, functional

__all__ = ["Function", "Variable", "backward", "detect_anomaly", "enable_grad", "function", "functional", "grad",
           "inference_mode", "no_grad", "set_detect_anomaly", "set_grad_enabled"]
