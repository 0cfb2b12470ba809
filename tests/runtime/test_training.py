"""Training steps under threads, forks, interrupts and changing numbers of threads: the same bits, or a clear end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = '''
import hashlib, multiprocessing, os, signal, sys, threading, time
import tracemill as tm

def build(width=256):
    tm.manual_seed(0)
    model = tm.nn.Sequential(tm.nn.Linear(64, width), tm.nn.ReLU(), tm.nn.Linear(width, 10))
    optimizer = tm.optim.Adam(model.parameters(), lr=1e-3)
    x, y = tm.randn(512, 64), tm.randint(0, 10, (512,))
    def step():
        optimizer.zero_grad()
        loss = tm.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    def digest():
        found = hashlib.sha256()
        for p in model.parameters():
            found.update(p.detach().numpy().tobytes())
            for value in optimizer.state[p].values():
                found.update(value.numpy().tobytes())
        return found.hexdigest()
    return step, digest

def trajectory(n):
    """The state after 0, 1, … n steps on one thread."""
    before = tm.get_num_threads()
    tm.set_num_threads(1)
    step, digest = build()
    run, found = tm.compile(step), []
    for _ in range(n):
        run().item()
        found.append(digest())
    tm.set_num_threads(before)
    return found
'''


def script(body: str, **env: str) -> str:
    done = subprocess.run([sys.executable, "-c", SCRIPT + textwrap.dedent(body)], capture_output=True, text=True,
                          timeout=120, env={**os.environ, **env}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_any_number_of_threads_at_any_time() -> None:
    script("""
        want = trajectory(8)
        step, digest = build()
        run = tm.compile(step)
        for count, expected in zip((2, 1, 7, 2, 33, 3, 256, 2), want):
            tm.set_num_threads(count)
            assert tm.get_num_threads() == count
            run().item()
            assert digest() == expected, count
    """)


@pytest.mark.parametrize("count", ["1", "2", "5"])
def test_the_environment_sets_the_number(count: str) -> None:
    text = script("""
        want = trajectory(3)
        step, digest = build()
        for expected in want:
            step().item()
            assert digest() == expected
        print(tm.get_num_threads())
    """, TRACEMILL_NUM_THREADS=count)
    assert text.split() == [count]


def test_threads_call_one_compiled_step() -> None:
    """Steps of several threads follow one another; none is lost or torn."""
    script("""
        want = trajectory(60)
        step, digest = build()
        run = tm.compile(step)
        tm.set_num_threads(2)
        sys.setswitchinterval(1e-5)
        errors = []
        def caller():
            try:
                for _ in range(15):
                    run().item()
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=caller) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not errors, errors
        assert digest() == want[-1]
    """)


def test_threads_with_models_of_their_own() -> None:
    script("""
        want = trajectory(15)
        tm.set_num_threads(2)
        made = [build() for _ in range(3)]
        runs = [tm.compile(step) for step, _ in made]
        sys.setswitchinterval(1e-5)
        errors = []
        def caller(run):
            try:
                for _ in range(15):
                    run()
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=caller, args=(run,)) for run in runs]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not errors, errors
        assert [digest() for _, digest in made] == [want[-1]] * 3
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on() -> None:
    """Parent and child continue from the same state, each with workers of its own."""
    script("""
        want = trajectory(6)
        tm.set_num_threads(2)
        step, digest = build()
        run = tm.compile(step)
        for _ in range(3):
            run().item()
        held = threading.Event(), threading.Event()
        from tracemill.frontends.python.trace import LOCK
        def hold():
            with LOCK:
                held[0].set()
                held[1].wait()
        threading.Thread(target=hold).start()
        held[0].wait()
        pid = os.fork()
        if pid == 0:
            for _ in range(3):
                run().item()
            os._exit(0 if digest() == want[5] else 3)
        held[1].set()
        assert os.waitpid(pid, 0)[1] == 0
        for _ in range(3):
            run().item()
        assert digest() == want[5]
    """)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str, tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "job.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(SCRIPT + textwrap.dedent("""
            def child(queue):
                step, digest = build()
                run = tm.compile(step)
                for _ in range(3):
                    run().item()
                queue.put(digest())

            if __name__ == "__main__":
                want = trajectory(3)
                tm.set_num_threads(2)
                step, digest = build()
                step().item()
                context = multiprocessing.get_context(sys.argv[1])
                queue = context.Queue()
                children = [context.Process(target=child, args=(queue,)) for _ in range(2)]
                [c.start() for c in children]
                got = [queue.get(timeout=90) for _ in children]
                [c.join(30) for c in children]
                assert got == [want[-1]] * 2 and all(c.exitcode == 0 for c in children)
                step().item()
                assert digest() == want[1]
        """))
    done = subprocess.run([sys.executable, path, method], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("how", ["compiled", "loop"])
def test_an_interrupt_leaves_a_whole_step(how: str) -> None:
    """Ctrl-C at any moment of a step: parameters and optimizer state are those after some number of steps."""
    script(f"""
        how = {how!r}
        want = trajectory(400)
        tm.set_num_threads(2)
        step, digest = build()
        run = tm.compile(step) if how == "compiled" else step
        run().item()
        done, landed = 1, 0
        for delay in (0.0003, 0.0007, 0.0011, 0.0019, 0.0031, 0.0043):
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    run().item()
            except KeyboardInterrupt:
                landed += 1
            tm.manual_seed(0)
            at = want.index(digest())
            assert at + 1 >= done
            done = at + 1
            run().item()
            done += 1
            assert digest() == want[done - 1]
        assert landed == 6
    """)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_a_core_is_taken_away() -> None:
    """Waiting workers give the one core that is left to those that have work."""
    script("""
        want = trajectory(30)
        tm.set_num_threads(2)
        step, digest = build()
        run = tm.compile(step)
        run().item()
        cores = os.sched_getaffinity(0)
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {min(cores)})
        began = time.perf_counter()
        for _ in range(29):
            run().item()
        assert time.perf_counter() - began < 10
        assert digest() == want[-1]
    """)


def test_the_process_ends_in_the_middle_of_training() -> None:
    text = script("""
        tm.set_num_threads(2)
        step, _ = build()
        run = tm.compile(step)
        run().item()
        def forever():
            while True:
                run()
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.05)
        print("fine")
    """)
    assert text == "fine\n"
