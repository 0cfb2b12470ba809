"""Initialisation in place (`torch.nn.init`)."""

from __future__ import annotations

from ..frontends.python.nn.init import *  # noqa: F403
from ..frontends.python.nn.init import __all__, _calculate_fan_in_and_fan_out

__all__ += ["_calculate_fan_in_and_fan_out"]
