"""The loader (`torch.utils.data.dataloader`)."""

from __future__ import annotations

from ...frontends.python.data.collate import default_collate, default_convert
from ...frontends.python.data.loader import DataLoader, get_worker_info

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]
