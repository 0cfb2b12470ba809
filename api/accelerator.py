"""The accelerator, if there is one (`torch.accelerator`)."""

from __future__ import annotations

from .frontends.python.device import Device


def is_available() -> bool:
    """Whether there is an accelerator besides the CPU."""
    return False


def device_count() -> int:
    """The number of accelerators."""
    return 0


def current_accelerator(check_available: bool = False) -> Device | None:
    """The accelerator's device, or None."""
    return None


__all__ = ["current_accelerator", "device_count", "is_available"]
