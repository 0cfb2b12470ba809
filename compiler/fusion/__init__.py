"""Fusion: nodes become kernels. See `Fuse`."""

from __future__ import annotations

from .fuse import Fuse
from .peak import peak_bytes

__all__ = ["Fuse", "peak_bytes"]
