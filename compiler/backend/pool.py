"""Compilation by helper processes: one for each core, started as soon as it is clear that something must be compiled.

Numba compiles under one lock, so threads do not help. A helper is a fresh interpreter that runs `serve` and nothing of
the user's program (`multiprocessing` would import its `__main__` again). It imports Numba while this process is still
in its passes; this process then need not import it at all, which saves it half a second and 100 MB. Helpers that die,
hang or cannot start cost nothing but time: what they leave is compiled here. They end when nothing has come for a
while, and with this process.
"""

from __future__ import annotations

import atexit
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from .spent import SPENT

if TYPE_CHECKING:
    from .kernel_store import KernelRequest

# With Numba imported already, this process compiles so many kernels in the time that helpers take to start.
MINIMUM = 12
MOST_HELPERS = 8
# Seconds after which a helper that does not answer is given up for lost, and after which one without work ends.
PATIENCE = 60.0
IDLE = 20.0
_MESSAGE_LIMIT = 1 << 28
_RUNNER = "runner"


@dataclass
class _Task:
    """Something to compile: its message, and where the answer goes; None stands for "do it yourself"."""

    message: tuple[Any, ...]
    at: int
    answers: queue.SimpleQueue[tuple[int, bytes | None]] = field(default_factory=queue.SimpleQueue)


def compile_all(requests: Sequence[KernelRequest], *, parallel: bool = True) -> Iterator[tuple[int, bytes]]:
    """Compile requests; yields (position, object) as they are done, in no fixed order.

    Raises:
        InternalError: a source cannot be compiled.
    """
    crew = _crew(len(requests)) if parallel else None
    if crew is None:
        for at, request in enumerate(requests):
            yield at, _compile(request)
        return
    answers: queue.SimpleQueue[tuple[int, bytes | None]] = queue.SimpleQueue()
    # The longest first: the last ones to end are then short.
    for at in sorted(range(len(requests)), key=lambda i: -len(requests[i].source)):
        r = requests[at]
        crew.submit(_Task(("kernel", r.source, r.entry, r.flags), at, answers))
    missing = set(range(len(requests)))
    while missing:
        try:
            at, data = answers.get(timeout=PATIENCE)
        except queue.Empty:
            at, data = min(missing), None
        if at in missing:  # a helper given up for lost may answer after all
            missing.remove(at)
            yield at, data if data is not None else _compile(requests[at])


def prepare() -> None:
    """Start helpers: something will have to be compiled soon. Nothing happens where this process would do it."""
    _crew(1)


_runner_task: _Task | None = None


def prepare_runner() -> None:
    """Let a helper compile the native plan runner meanwhile, if there are helpers."""
    global _runner_task
    crew = _crew(1)
    if crew is not None and _runner_task is None:
        _runner_task = _Task((_RUNNER,), 0)
        crew.submit(_runner_task)


def compile_runner() -> bytes:
    """The native plan runner's object: from the helper that was asked for it, or made here."""
    global _runner_task
    task, _runner_task = _runner_task, None
    if task is not None:
        try:
            data = task.answers.get(timeout=PATIENCE)[1]
        except queue.Empty:
            data = None
        if data is not None:
            return data
    from .runner_source import compile_runner as compile_here

    return compile_here()


def _compile(request: KernelRequest) -> bytes:
    from .numba_cpu import compile_source

    return compile_source(request.source, request.entry, flags=request.flags)


def helper_count() -> int:
    """How many helpers there may be: `TRACEMILL_COMPILERS`, or else one for each core, none for a single one."""
    given = os.environ.get("TRACEMILL_COMPILERS", "")
    if given.isdecimal():
        return int(given)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return min(cores, MOST_HELPERS) if cores > 1 and sys.executable else 0


# -- this side --------------------------------------------------------------------------------------------------------

_current: _Crew | None = None
_lock = threading.Lock()


def _crew(kernels: int) -> _Crew | None:
    """Helpers for some kernels; None if this process had better compile them itself."""
    global _current
    with _lock:
        if _current is not None and _current.works():
            return _current
        count = helper_count()
        if count == 0 or (f"{__package__}.frontend" in sys.modules and kernels < MINIMUM):
            return None
        _current = _Crew(count)
        return _current


def _forget() -> None:
    """In a forked child: the helpers are the parent's."""
    global _current, _runner_task, _lock
    _current = _runner_task = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Crew:
    """Helper processes over one queue, each with a thread of this process that feeds it."""

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._feeding = count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._owner = os.getpid()
        for k in range(count):
            threading.Thread(target=self._feed, daemon=True, name=f"tracemill-compiler-{k}").start()
        atexit.register(self.close)

    def works(self) -> bool:
        """Whether a helper is left."""
        with self._guard:
            return self._feeding > 0

    def submit(self, task: _Task) -> None:
        """Have something compiled; without helpers the answer is None at once."""
        with self._guard:
            if self._feeding > 0:
                self._tasks.put(task)
                return
        task.answers.put((task.at, None))

    def close(self) -> None:
        """End the helpers (a forked child leaves its parent's alone)."""
        if os.getpid() != self._owner:
            return
        for process in self._processes:
            process.kill()
            process.wait()

    def _feed(self) -> None:
        """Start a helper and keep it busy; what is left when the last helper goes is answered by None."""
        task: _Task | None = None
        try:
            with _start() as process:
                self._processes.append(process)
                while True:
                    task = self._tasks.get(timeout=IDLE)
                    _send(process.stdin, (*task.message, os.environ.get("TRACEMILL_CPU")))
                    answer = _receive(process.stdout)
                    data, numba, llvm = answer if isinstance(answer, tuple) else (None, 0.0, 0.0)
                    SPENT.numba += numba
                    SPENT.llvm += llvm
                    done, task = task, None
                    done.answers.put((done.at, data))
        except (OSError, ValueError, EOFError, pickle.PickleError, queue.Empty):
            pass
        finally:
            if task is not None:
                task.answers.put((task.at, None))
            self._leave()

    def _leave(self) -> None:
        with self._guard:
            self._feeding -= 1
            if self._feeding:
                return
            while True:
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    return
                task.answers.put((task.at, None))


# Without the package's own `__init__`: helpers need nothing of the frontend. A session of its own: Ctrl-C in a terminal
# is meant for the user's program.
_PROGRAM = """
import sys, types
sys.path[:] = {path!r}
package = sys.modules[{name!r}] = types.ModuleType({name!r})
package.__path__ = {folders!r}
from {module} import serve
serve()
"""


def _start() -> subprocess.Popen[bytes]:
    name = __name__.partition(".")[0]
    program = _PROGRAM.format(path=sys.path, name=name, folders=list(sys.modules[name].__path__), module=__name__)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
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


# -- the helper's side ------------------------------------------------------------------------------------------------


def serve() -> None:
    """A helper's whole life: compile what comes in on standard input, until it ends."""
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not break the protocol
    from . import frontend  # noqa: F401  (imports Numba, before there is anything to do)

    while True:
        try:
            task: Any = _receive(incoming)
        except EOFError:
            return
        kind, *arguments, cpu = task
        if cpu is None:
            os.environ.pop("TRACEMILL_CPU", None)
        else:
            os.environ["TRACEMILL_CPU"] = cpu
        before = SPENT.numba, SPENT.llvm
        try:
            data = _answer(kind, *arguments)
        except Exception as error:  # the caller compiles it again and reports
            _send(outgoing, str(error))
        else:
            _send(outgoing, (data, SPENT.numba - before[0], SPENT.llvm - before[1]))


def _answer(kind: str, *arguments: Any) -> bytes:
    from .numba_cpu import compile_source

    if kind == _RUNNER:
        from .runner_source import compile_runner as compile_here

        return compile_here()
    source, entry, flags = arguments
    return compile_source(source, entry, flags=flags)
