"""`torch.backends.cuda`."""

from __future__ import annotations

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=False)


def is_built() -> bool:
    """Whether CUDA is supported."""
    return False


__all__ = ["is_built", "matmul"]
