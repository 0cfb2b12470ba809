"""CUDA queries (`torch.cuda`): there is no device, so scripts that ask take their CPU path."""

from __future__ import annotations

from typing import Any

from ..frontends.python.device import no_cuda


def is_available() -> bool:
    """Whether a CUDA device can be used."""
    return False


def device_count() -> int:
    """The number of CUDA devices."""
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the current device computes in bfloat16."""
    return False


def is_initialized() -> bool:
    """Whether CUDA has been used."""
    return False


def manual_seed(seed: int) -> None:
    """Seed the current device's generator: there is none."""


def manual_seed_all(seed: int) -> None:
    """Seed all devices' generators: there are none."""


def empty_cache() -> None:
    """Release cached device memory: there is none."""


def ipc_collect() -> None:
    """Release device memory of other processes: there is none."""


def synchronize(device: Any = None) -> None:
    """Wait for the device. Raises NotSupportedError."""
    raise no_cuda()


def set_device(device: Any) -> None:
    """Choose the current device. Raises NotSupportedError."""
    raise no_cuda()


def current_device() -> int:
    """The current device's number. Raises NotSupportedError."""
    raise no_cuda()


def get_device_name(device: Any = None) -> str:
    """A device's name. Raises NotSupportedError."""
    raise no_cuda()


def memory_allocated(device: Any = None) -> int:
    """Bytes of device memory in use."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    """Most bytes of device memory that were in use."""
    return 0


def reset_peak_memory_stats(device: Any = None) -> None:
    """Forget the peak: there is none."""


__all__ = ["current_device", "device_count", "empty_cache", "get_device_name", "ipc_collect", "is_available",
           "is_bf16_supported", "is_initialized", "manual_seed", "manual_seed_all", "max_memory_allocated",
           "memory_allocated", "reset_peak_memory_stats", "set_device", "synchronize"]
