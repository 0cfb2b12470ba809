"""tracemill: PyTorch-style scripts compiled to one static IR."""

from __future__ import annotations

from typing import Any

from .frontends.python import functions as _functions  # noqa: F401  (registers everything)
from .frontends.python.device import Device as device
from .frontends.python.dtypes import (
    bfloat16,
    double,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    long,
    set_default_dtype,
    short,
    uint8,
    uint32,
    uint64,
)
from .frontends.python.dtypes import (
    bool_ as bool,
)
from .frontends.python.dtypes import (
    float_ as float,
)
from .frontends.python.dtypes import (
    int_ as int,
)
from .frontends.python.registry import FUNCTIONS as _FUNCTIONS
from .frontends.python.tensor import Size, Tensor
from .runtime.workers import get_num_threads, set_num_threads

globals().update(_FUNCTIONS)

strided = "torch.strided"
contiguous_format, preserve_format = "torch.contiguous_format", "torch.preserve_format"
channels_last = "torch.channels_last"
newaxis = None
__version__ = "0.1.0"

# The registry's keys are strings, which ruff cannot see.
__all__ = [  # noqa: PLE0604
    "Size", "Tensor", "bfloat16", "bool", "device", "double", "dtype", "finfo", "float", "float16", "float32",
    "float64", "get_default_dtype", "half", "iinfo", "int", "int16", "int32", "int64", "int8", "long",
    "get_num_threads", "set_default_dtype", "set_num_threads", "short", "uint32", "uint64", "uint8", *_FUNCTIONS,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Submodules are imported at first use."""
    import importlib
    import importlib.util

    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'tracemill' has no attribute '{name}'")
