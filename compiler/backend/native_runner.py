"""The native plan runner from the kernel cache, compiled on first use. Imports Numba only for that."""

from __future__ import annotations

from ...runtime import layout
from ...runtime.loader import load_object
from ..cache import DiskCache, cache_key, compiler_digest, toolchain


def load_runner(cache: DiskCache | None) -> int:
    """The runner's address in this process."""
    parts = {"entry": "runner", **toolchain(), "compiler": compiler_digest(cache.root if cache is not None else None)}
    key = cache_key(parts)
    record = cache.get("kernel", key) if cache is not None else None
    if record is not None:
        return load_object(record.payload, layout.RUNNER_SYMBOL)
    from .runner_source import compile_runner

    data = compile_runner()
    if cache is not None:
        cache.put("kernel", key, data, parts)
    return load_object(data, layout.RUNNER_SYMBOL)
