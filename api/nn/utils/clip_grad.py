"""Gradient clipping (`torch.nn.utils.clip_grad`)."""

from __future__ import annotations

from ...frontends.python.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]
