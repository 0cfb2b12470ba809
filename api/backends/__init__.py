"""Switches of PyTorch's backends (`torch.backends`): accepted, and without effect here."""

from __future__ import annotations

from . import cuda, cudnn, mkldnn, mps

__all__ = ["cuda", "cudnn", "mkldnn", "mps"]
