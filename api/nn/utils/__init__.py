"""Helpers around modules (`torch.nn.utils`)."""

from __future__ import annotations

from ...frontends.python.nn.utils import *  # noqa: F403
from ...frontends.python.nn.utils import __all__ as __all__
