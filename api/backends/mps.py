"""`torch.backends.mps`."""

from __future__ import annotations


def is_available() -> bool:
    """Whether Apple's GPU can be used."""
    return False


def is_built() -> bool:
    """Whether Apple's GPU is supported."""
    return False


__all__ = ["is_available", "is_built"]
