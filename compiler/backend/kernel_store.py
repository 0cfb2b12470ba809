"""Kernels by content: the memory of this process, then the disk cache, then the compiler.

`KernelStore.get` answers with loaded code. A kernel that is in the cache is loaded without importing Numba or
llvmlite.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...ir.errors import InternalError
from ...runtime.loader import load_object
from ..cache import Counters, DiskCache, Explanation, Kind, cache_key, compiler_digest, digest, toolchain
from .flags import CompileFlags, code_of, kernel_symbol

_KERNEL: Kind = "kernel"
Progress = Callable[[int, int], None]
NO_ALIASING = CompileFlags()


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """A kernel to be had: its generated source, the entry function in it, the aliasing of its operands."""

    source: str
    entry: str
    flags: CompileFlags = NO_ALIASING

    @property
    def symbol(self) -> str:
        """The exported name in the object."""
        return kernel_symbol(self.source, self.entry, self.flags)


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel in memory, callable at `address` through the kernel ABI for as long as the process lives.

    Attributes:
        key: its key in the cache; a plan may keep it and ask for it with `KernelStore.by_key`.
        symbol: the exported name.
        address: of the code.
        data: the object.
        source: the generated source; empty if it came by key.
    """

    key: str
    symbol: str
    address: int
    data: bytes
    source: str


class KernelStore:
    """Kernels of one process over one disk cache.

    Args:
        cache: the disk cache; None to keep nothing on disk.
    """

    def __init__(self, cache: DiskCache | None = None) -> None:
        self.cache = cache
        self.counters = cache.counters[_KERNEL] if cache is not None else Counters()
        self.compile_seconds = 0.0
        self._lock = threading.RLock()
        self._loaded: dict[str, LoadedKernel] = {}
        self._keys: dict[KernelRequest, str] = {}
        self._common: dict[str, str] | None = None

    # -- keys ------------------------------------------------------------------------------------------------

    def parts(self, request: KernelRequest) -> dict[str, str]:
        """All that a kernel's code depends on, by name."""
        if self._common is None:
            memo = self.cache.root if self.cache is not None else None
            self._common = {**toolchain(), "compiler": compiler_digest(memo)}
        return {
            "entry": request.entry,
            "source": digest(code_of(request.source)),
            "flags": request.flags.key(),
            "symbol": request.symbol,
            **self._common,
        }

    def key(self, request: KernelRequest) -> str:
        """The kernel's key in the cache."""
        key = self._keys.get(request)
        if key is None:
            key = self._keys[request] = cache_key(self.parts(request))
        return key

    def explain(self, request: KernelRequest) -> Explanation | None:
        """Why the disk cache does not hold a kernel; None if it does, or if there is no cache."""
        if self.cache is None or self.cache.path(_KERNEL, self.key(request)).exists():
            return None
        return self.cache.explain(_KERNEL, self.parts(request))

    # -- look-up ---------------------------------------------------------------------------------------------

    def get(self, source: str, entry: str, flags: CompileFlags | None = None) -> LoadedKernel:
        """The kernel, loaded; compiled if neither memory nor disk has it.

        Raises:
            InternalError: the source cannot be compiled.
        """
        return self.get_many([KernelRequest(source, entry, flags or CompileFlags())])[0]

    def by_key(self, key: str) -> LoadedKernel | None:
        """A kernel that memory or disk holds under a key, loaded; None if it must be compiled anew."""
        with self._lock:
            return self._loaded.get(key) or self._from_disk(key, None)

    def get_many(
        self,
        requests: Iterable[KernelRequest],
        *,
        progress: Progress | None = None,
        parallel: bool = True,
    ) -> list[LoadedKernel]:
        """The kernels, in order; equal ones once.

        Args:
            requests: what to get.
            progress: called as (compiled so far, to compile) before the first and after each compilation.
            parallel: many missing kernels may be compiled by further processes.

        Raises:
            InternalError: a source cannot be compiled.
        """
        wanted = list(requests)
        with self._lock:
            missing: dict[str, KernelRequest] = {}
            for request in wanted:
                key = self.key(request)
                if key not in self._loaded and key not in missing and self._from_disk(key, request) is None:
                    missing[key] = request
            if missing:
                self._compile(missing, progress, parallel)
            return [self._loaded[self.key(request)] for request in wanted]

    def _from_disk(self, key: str, request: KernelRequest | None) -> LoadedKernel | None:
        if self.cache is None:
            self.counters.misses += 1
            return None
        record = self.cache.get(_KERNEL, key)
        if record is None:
            return None
        symbol = record.parts.get("symbol", "")
        try:
            if request is not None and symbol != request.symbol:
                raise InternalError("the record is another kernel's")
            return self._keep(key, symbol, record.payload, request.source if request else "")
        except InternalError:
            self.cache.discard(_KERNEL, key)
            return None

    def _keep(self, key: str, symbol: str, data: bytes, source: str) -> LoadedKernel:
        kernel = LoadedKernel(key, symbol, load_object(data, symbol), data, source)
        self._loaded[key] = kernel
        self.counters.loaded += 1
        return kernel

    # -- compilation -----------------------------------------------------------------------------------------

    def _compile(self, missing: dict[str, KernelRequest], progress: Progress | None, parallel: bool) -> None:
        from .pool import compile_all

        started = time.perf_counter()
        keys, requests = list(missing), list(missing.values())
        if progress is not None:
            progress(0, len(keys))
        for done, (at, data) in enumerate(compile_all(requests, parallel=parallel), 1):
            self._store(keys[at], requests[at], data)
            if progress is not None:
                progress(done, len(keys))
        self.compile_seconds += time.perf_counter() - started

    def _store(self, key: str, request: KernelRequest, data: bytes) -> None:
        self.counters.compiled += 1
        if self.cache is not None:
            self.cache.put(_KERNEL, key, data, self.parts(request), readable(request))
        self._keep(key, request.symbol, data, request.source)


def readable(request: KernelRequest) -> str:
    """The text that lies beside an object: the generated source under a line that says what it is."""
    return (
        f"# tracemill kernel {request.symbol}: entry {request.entry}, {request.flags.key()}\n{request.source}"
    )
