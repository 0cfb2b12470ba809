"""Worker threads: persistent, in native code while there is work, asleep while there is none.

A run is shared by the caller and the workers of one process-wide pool; while a thread uses the pool, runs of
other threads walk their plan alone, with the same results. Everything that runs often happens in the native
runner: here threads are started, stopped, and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache

from ..ir.errors import InternalError, TracemillError
from . import layout as L

MAX_WORKERS = 256
_VARIABLE = "TRACEMILL_NUM_THREADS"
# Waiting: about 20 µs of pauses, then yields, then sleeps (at a barrier) or parking (when idle).
_SPINS, _SPINS_CROWDED, _YIELDS, _SLEEP_NS = 1000, 20, 200, 50_000

Runner = Callable[[int, int, int], int]
_RUNNER_TYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def runner_at(address: int) -> Runner:
    """The native runner at an address as a Python callable; it releases the GIL while it runs."""
    return _RUNNER_TYPE(address)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


def _initial_count() -> int:
    text = os.environ.get(_VARIABLE, "").strip()
    if not text:
        return min(available_cores(), MAX_WORKERS)
    if not text.isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise TracemillError(
            f"{_VARIABLE}={text!r} is not a number of threads", hint=f"give a number from 1 to {MAX_WORKERS}"
        )
    return int(text)


class _State:
    """What the process has; replaced as a whole after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: Pool | None = None
        self.closed = False


_state = _State()
_count: int | None = None


def get_num_threads() -> int:
    """Number of threads that runs are shared among: `set_num_threads`, `TRACEMILL_NUM_THREADS`, or the cores.

    Raises:
        TracemillError: the environment variable is no number of threads.
    """
    global _count
    if _count is None:
        _count = _initial_count()
    return _count


def set_num_threads(number: int) -> None:
    """Share runs among `number` threads from now on, the calling one included. Results do not depend on it.

    Raises:
        TracemillError: not an integer from 1 to 256.
    """
    global _count
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_WORKERS:
        raise TracemillError(f"set_num_threads({number!r}): expected an integer from 1 to {MAX_WORKERS}")
    _count = number
    _tune()


def _address(library: ctypes.CDLL, *names: str) -> int:
    for name in names:
        with contextlib.suppress(AttributeError):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    raise InternalError(f"this system's C library has no {names[0]}")


def _leaked_words(count: int) -> tuple[ctypes.Array[ctypes.c_int64], int]:
    """A zeroed block, 128-byte aligned, never freed: threads may look at it until the process is gone."""
    block = (ctypes.c_int64 * (count + 16))()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(block))
    skip = -ctypes.addressof(block) % 128 // L.WORD
    return block, skip


@cache
def environment() -> int:
    """The address of the environment block (`layout.ENV_*`)."""
    libc = ctypes.CDLL(None)
    block, skip = _leaked_words(L.ENV_WORDS)
    for word, name in (
        (L.ENV_YIELD, "sched_yield"),
        (L.ENV_SLEEP, "nanosleep"),
        (L.ENV_LOCK, "pthread_mutex_lock"),
        (L.ENV_UNLOCK, "pthread_mutex_unlock"),
        (L.ENV_WAIT, "pthread_cond_wait"),
        (L.ENV_SIGNAL, "pthread_cond_signal"),
        (L.ENV_COPY, "memcpy"),
        (L.ENV_CLOCK, "clock_gettime"),
    ):
        block[skip + word] = _address(libc, name)
    block[skip + L.ENV_CLOCK_ID] = 6 if sys.platform == "darwin" else 1  # CLOCK_MONOTONIC
    block[skip + L.ENV_YIELDS] = _YIELDS
    block[skip + L.ENV_TIMESPEC + 1] = _SLEEP_NS
    address = ctypes.addressof(block) + skip * L.WORD
    _set_spins(address)
    return address


def _set_spins(address: int) -> None:
    crowded = get_num_threads() > available_cores()
    ctypes.c_int64.from_address(address + L.ENV_SPINS * L.WORD).value = _SPINS_CROWDED if crowded else _SPINS


def _tune() -> None:
    """With more threads than cores, waiting must not keep a core from those that have work."""
    if environment.cache_info().currsize:
        _set_spins(environment())


class Pool:
    """The workers 1, 2, … of this process (worker 0 is whoever calls). Threads start when first needed."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.threads: list[threading.Thread] = []
        words = L.POOL_MAIL + MAX_WORKERS * L.MAIL_WORDS
        block, skip = _leaked_words(words)
        self.address = ctypes.addressof(block) + skip * L.WORD
        block[skip + L.POOL_ENVIRONMENT] = environment()

    def grow(self, workers: int) -> None:
        """Start threads until the pool serves runs of `workers` workers, or the system gives no more."""
        libc = ctypes.CDLL(None)
        while len(self.threads) < workers - 1:
            number = len(self.threads) + 1
            mail = self.address + (L.POOL_MAIL + number * L.MAIL_WORDS) * L.WORD
            libc.pthread_mutex_init(ctypes.c_void_p(mail + L.MAIL_MUTEX * L.WORD), None)
            libc.pthread_cond_init(ctypes.c_void_p(mail + L.MAIL_CONDITION * L.WORD), None)
            thread = threading.Thread(
                target=self.runner,
                args=(L.CALL_WORK, self.address, number),
                name=f"tracemill-{number}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is about to end
                return
            self.threads.append(thread)

    def stop(self) -> None:
        """End the threads; those of a run in progress are left alone."""
        busy = ctypes.c_int64.from_address(self.address + L.POOL_BUSY * L.WORD)
        if busy.value:
            return
        busy.value = 1  # whoever runs later runs alone
        for number in range(1, len(self.threads) + 1):
            self.runner(L.CALL_STOP, self.address, number)
        for thread in self.threads:
            thread.join(timeout=2.0)


def pool_for(workers: int, runner: Runner) -> int:
    """The address of a pool that serves `workers` workers; 0 if there is none (then run alone)."""
    pool = _state.pool
    if pool is not None and len(pool.threads) >= workers - 1:
        return pool.address
    with _state.lock:
        if _state.closed:
            return 0
        if _state.pool is None:
            _state.pool = Pool(runner)
        _state.pool.grow(workers)
        return _state.pool.address if len(_state.pool.threads) >= workers - 1 else 0


@atexit.register
def _close() -> None:
    """Before the interpreter is taken apart, no thread of ours may be about to come back to it."""
    with _state.lock:
        _state.closed = True
        pool, _state.pool = _state.pool, None
    if pool is not None:
        pool.stop()


def _after_fork() -> None:
    """The child has none of the threads, and may have a lock that another thread held."""
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
