"""Threads: several callers, more threads than cores, forks, interrupts, the end of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tracemill.ir.errors import TracemillError
from tracemill.runtime import workers


def mirrored(b, n=4096, passes=20):
    """Every pass reads what all workers wrote in the one before."""
    x, t, y = b.input("x", n), b.temporary(n), b.output("y", n)
    first = b.call("affine", x, y, range=n)
    rest = [
        b.call("mirror", *((y, t) if i % 2 == 0 else (t, y)), range=n, extents=(n,)) for i in range(passes)
    ]
    return b.plan(first, *rest)


def test_several_threads_call_at_once(kit, b):
    executable = kit.executable(mirrored(b))
    workers.set_num_threads(2)
    inputs = [np.full(4096, i, np.float32) for i in range(6)]
    want = [executable.run([x])[0] for x in inputs]
    failures = []

    def caller(number: int) -> None:
        for _ in range(40):
            (got,) = executable.run([inputs[number]])
            if got.tobytes() != want[number].tobytes():
                failures.append(number)

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_more_threads_than_cores(kit, b):
    executable = kit.executable(mirrored(b))
    x = np.linspace(-1, 1, 4096, dtype=np.float32)
    workers.set_num_threads(1)
    want = executable.run([x])[0].tobytes()
    for count in (8, 16, 3):
        workers.set_num_threads(count)
        for _ in range(5):
            assert executable.run([x])[0].tobytes() == want


def test_idle_workers_take_no_time(kit, b):
    executable = kit.executable(mirrored(b))
    workers.set_num_threads(2)
    executable.run([np.zeros(4096, np.float32)])
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05
    executable.run([np.zeros(4096, np.float32)])  # and they wake


def test_number_of_threads_is_checked():
    for wrong in (0, -1, 257, 1.5, True, "2"):
        with pytest.raises(TracemillError, match="expected an integer from 1 to 256"):
            workers.set_num_threads(wrong)


SCRIPT = """
import importlib.util, os, signal, sys, threading, time
spec = importlib.util.spec_from_file_location("kit_conftest", {conftest!r})
conftest = importlib.util.module_from_spec(spec)
sys.modules["kit_conftest"] = conftest
spec.loader.exec_module(conftest)
import numpy as np
from tracemill.runtime import workers
from tracemill.runtime.plan import Repeat
kit, b = conftest.Kit(), conftest.Builder()
"""


def run_script(
    body: str, *, env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    text = SCRIPT.format(conftest=str(Path(__file__).with_name("conftest.py"))) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    """A child has no workers of its parent's; it starts its own. Locks held in the parent do not matter."""
    done = run_script("""
        n = 4096
        x, y = b.input("x", n), b.output("y", n)
        executable = kit.executable(b.plan(*[b.call("affine", x, y, range=n)] * 5))
        workers.set_num_threads(2)
        want = executable.run([np.arange(n, dtype=np.float32)])[0].tobytes()
        stop = threading.Event()
        def keep_busy():
            while not stop.is_set():
                executable.run([np.zeros(n, np.float32)])
        busy = threading.Thread(target=keep_busy)
        busy.start()
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                x = np.arange(n, dtype=np.float32)
                ok = all(executable.run([x])[0].tobytes() == want for _ in range(20))
                os._exit(0 if ok and len(workers._state.pool.threads) == 1 else 3)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        busy.join()
        assert executable.run([np.arange(n, dtype=np.float32)])[0].tobytes() == want
        print("fine")
    """)
    assert done.returncode == 0 and done.stdout == "fine\n", done.stderr


def test_interrupt_comes_after_the_step():
    done = run_script("""
        n, rounds = 1 << 16, 20000
        p, q = b.input("p", n), b.output("q", n, replaces=0)
        executable = kit.executable(b.plan(Repeat(rounds, (b.call("bump", q, range=n),))))
        workers.set_num_threads(2)
        p = np.zeros(n, np.float32)
        executable.run([np.zeros(n, np.float32)])
        print("ready", flush=True)
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        steps = 0
        try:
            while True:
                executable.run([p])
                steps += 1
        except KeyboardInterrupt:
            pass
        assert p[0] % rounds == 0 and (p == p[0]).all(), p
        executable.run([p])
        assert (p == p[0]).all() and p[0] % rounds == 0
        print("fine")
    """)
    assert done.returncode == 0 and done.stdout == "ready\nfine\n", done.stderr


@pytest.mark.parametrize(
    "body", ["", "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)"]
)
def test_the_process_ends_cleanly(body):
    """With workers spinning, and with a daemon thread in the middle of runs."""
    done = run_script(f"""
        n = 1 << 14
        x, y = b.input("x", n), b.output("y", n)
        executable = kit.executable(b.plan(*[b.call("affine", x, y, range=n)] * 50))
        workers.set_num_threads(3)
        def forever():
            while True:
                executable.run([np.zeros(n, np.float32)])
        executable.run([np.zeros(n, np.float32)])
        {body}
        print("fine", flush=True)
    """)
    assert done.returncode == 0 and done.stdout == "fine\n", done.stderr
    assert "Fatal" not in done.stderr


def test_runs_in_late_exit_handlers_work():
    done = run_script("""
        n = 1 << 14
        x, y = b.input("x", n), b.output("y", n)
        executable = kit.executable(b.plan(*[b.call("affine", x, y, range=n)] * 5))
        workers.set_num_threads(2)
        executable.run([np.zeros(n, np.float32)])
        workers._close()
        print(executable.run([np.zeros(n, np.float32)])[0][0])
    """)
    assert done.returncode == 0 and done.stdout == "1.0\n", done.stderr


@pytest.mark.parametrize(
    "value, answer", [("3", "3"), ("", None), ("0", "not a number of threads"), ("two", "not a number")]
)
def test_environment_variable(value, answer):
    code = (
        "from tracemill.runtime.workers import get_num_threads, available_cores; "
        "print(get_num_threads(), available_cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TRACEMILL_NUM_THREADS": value},
    )
    if answer is None:
        count, cores = done.stdout.split()
        assert count == cores
    else:
        assert answer in done.stdout + done.stderr


def test_a_stopped_core_does_not_stop_the_others(kit, b):
    """A worker that gets no time for a while only delays the run: waiting threads yield and sleep."""
    executable = kit.executable(mirrored(b, passes=200))
    workers.set_num_threads(2)
    x = np.zeros(4096, np.float32)
    want = executable.run([x])[0].tobytes()
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        start = time.perf_counter()
        for _ in range(10):
            assert executable.run([x])[0].tobytes() == want
        assert time.perf_counter() - start < 20
    finally:
        for process in burning:
            process.send_signal(signal.SIGKILL)
            process.wait()
