"""Layers as functions (`torch.nn.functional`)."""

from __future__ import annotations

from ..frontends.python.nn.functional import *  # noqa: F403
from ..frontends.python.nn.functional import __all__ as __all__
