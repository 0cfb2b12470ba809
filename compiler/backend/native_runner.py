"""The native plan runner, loaded: from this process, the disk cache, or (imported then only) the compiler."""

from __future__ import annotations

import threading

from ...ir.errors import InternalError
from ...runtime.layout import RUNNER_SYMBOL
from ...runtime.loader import load_object
from ..cache import DiskCache, Kind, cache_key, compiler_digest, toolchain
from . import pool

_KERNEL: Kind = "kernel"
_lock = threading.Lock()
_address = 0


def load_runner(cache: DiskCache | None = None) -> int:
    """The address of the native plan runner, for `Executable`. Compiled once per cache, loaded once.

    Args:
        cache: the disk cache; None to keep nothing on disk.
    """
    global _address
    with _lock:
        if not _address:
            _address = _from_disk(cache) or _compile(cache)
        return _address


def prepare_runner(cache: DiskCache | None = None) -> None:
    """Have the runner compiled meanwhile, if it must be."""
    global _address
    with _lock:
        if not _address:
            _address = _from_disk(cache)
        if not _address:
            pool.prepare_runner()


def _parts(cache: DiskCache) -> dict[str, str]:
    """The key of the runner's record: its source is part of the compiler's own."""
    return {**toolchain(), "compiler": compiler_digest(cache.root), "symbol": RUNNER_SYMBOL}


def _from_disk(cache: DiskCache | None) -> int:
    """The address of the cached runner; 0 if there is none that can be used."""
    if cache is None:
        return 0
    key = cache_key(_parts(cache))
    record = cache.get(_KERNEL, key)
    if record is None:
        return 0
    try:
        return load_object(record.payload, RUNNER_SYMBOL)
    except InternalError:
        cache.discard(_KERNEL, key)
        return 0


def _compile(cache: DiskCache | None) -> int:
    data = pool.compile_runner()
    if cache is not None:
        parts = _parts(cache)
        cache.put(
            _KERNEL,
            cache_key(parts),
            data,
            parts,
            "# the native plan runner: compiler/backend/runner_source.py\n",
        )
    return load_object(data, RUNNER_SYMBOL)
