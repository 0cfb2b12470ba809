"""Compilation of many kernels at once, by further processes where that pays.

Numba compiles under one lock, so threads do not help. The helpers are fresh interpreters that run `serve` and
nothing of the user's program (`multiprocessing` would import its `__main__` again); they take work from one
queue together with this process, so a helper that is slow to start or dies costs nothing but its share.
"""

from __future__ import annotations

import collections
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from .kernel_store import KernelRequest

# A helper needs 0.4 s to start, in which this process compiles about fifteen kernels.
MINIMUM = 32
PER_HELPER = 16
# Seconds after which a helper that does not answer is given up for lost.
PATIENCE = 60.0
_MESSAGE_LIMIT = 1 << 28


def compile_all(requests: Sequence[KernelRequest], *, parallel: bool = True) -> Iterator[tuple[int, bytes]]:
    """Compile requests; yields (position, object) as they are done, in no fixed order.

    Raises:
        InternalError: a source cannot be compiled.
    """
    helpers = _helper_count(len(requests)) if parallel else 0
    if helpers == 0:
        for at, request in enumerate(requests):
            yield at, _compile(request)
        return
    yield from _Pool(requests, helpers).run()


def _compile(request: KernelRequest) -> bytes:
    from .numba_cpu import compile_source

    return compile_source(request.source, request.entry, flags=request.flags)


def _helper_count(kernels: int) -> int:
    if kernels < MINIMUM or not sys.executable:
        return 0
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(0, min(cores - 1, kernels // PER_HELPER, 8))


class _Pool:
    """A queue of requests, served by helpers through threads that wait for them, and by the caller itself."""

    def __init__(self, requests: Sequence[KernelRequest], helpers: int) -> None:
        self.requests = requests
        self.waiting = collections.deque(range(len(requests)))
        self.results: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(helpers)]

    def run(self) -> Iterator[tuple[int, bytes]]:
        for thread in self.threads:
            thread.start()
        missing = set(range(len(self.requests)))
        try:
            while missing:
                for at, data in self._step(missing):
                    if at in missing:  # a helper given up for lost may answer after all
                        missing.remove(at)
                        yield at, data
        finally:
            self.waiting.clear()
            for process in self.processes:
                process.terminate()

    def _step(self, missing: set[int]) -> Iterator[tuple[int, bytes]]:
        """Compile one request here, or wait for a helper; then collect what the helpers have done."""
        try:
            at, wait = self.waiting.popleft(), None
        except IndexError:  # all is with the helpers; one that fails puts its request back
            at, wait = None, PATIENCE
        if at is not None:
            yield at, _compile(self.requests[at])
        try:
            while True:
                result = self.results.get(block=wait is not None, timeout=wait)
                wait = None
                if result is not None:
                    yield result
        except queue.Empty:
            if wait is not None:
                self.waiting.extend(sorted(missing))

    def _feed(self) -> None:
        """Start a helper and keep it busy; on any trouble leave the rest to the others."""
        at: int | None = None
        try:
            with _start() as process:
                self.processes.append(process)
                while self.waiting:
                    at = self.waiting.popleft()
                    request = self.requests[at]
                    _send(process.stdin, (request.source, request.entry, request.flags))
                    data = _receive(process.stdout)
                    if not isinstance(data, bytes):
                        break
                    self.results.put((at, data))
                    at = None
        except (OSError, ValueError, IndexError, EOFError, pickle.PickleError):
            pass
        finally:
            if at is not None:
                self.waiting.append(at)  # compiled, or its error raised, by the caller
            self.results.put(None)


def _start() -> subprocess.Popen[bytes]:
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _send(stream: BinaryIO | Any, value: object) -> None:
    data = pickle.dumps(value)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> object:
    size = stream.read(8)
    if len(size) < 8:
        raise EOFError
    length = int.from_bytes(size, "little")
    if length > _MESSAGE_LIMIT:
        raise ValueError("not a message of ours")
    return pickle.loads(stream.read(length))


def serve() -> None:
    """A helper's whole life: compile what comes in on standard input, until it ends."""
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not break the protocol
    from .numba_cpu import compile_source

    while True:
        try:
            task: Any = _receive(incoming)
        except EOFError:
            return
        source, entry, flags = task
        try:
            answer: object = compile_source(source, entry, flags=flags)
        except Exception as error:  # the caller compiles it again and reports
            answer = str(error)
        _send(outgoing, answer)
