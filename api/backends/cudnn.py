"""`torch.backends.cudnn`: scripts set these; results here are deterministic always."""

from __future__ import annotations

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """Whether cuDNN can be used."""
    return False


def version() -> None:
    """cuDNN's version."""
    return None


__all__ = ["allow_tf32", "benchmark", "deterministic", "enabled", "is_available", "version"]
