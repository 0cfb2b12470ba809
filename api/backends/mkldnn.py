"""`torch.backends.mkldnn`."""

from __future__ import annotations

enabled = False


def is_available() -> bool:
    """Whether oneDNN can be used."""
    return False


__all__ = ["enabled", "is_available"]
