"""Sequences of different lengths (`torch.nn.utils.rnn`)."""

from __future__ import annotations

from ...frontends.python.nn.utils import pad_sequence, unpad_sequence

__all__ = ["pad_sequence", "unpad_sequence"]
