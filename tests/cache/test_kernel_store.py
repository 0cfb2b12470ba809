"""Kernels through memory, disk and compiler; in particular: from the disk without a compiler in the
process.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracemill.compiler.backend import kernel_store, pool
from tracemill.compiler.backend.flags import CompileFlags
from tracemill.compiler.backend.kernel_store import KernelRequest, KernelStore
from tracemill.compiler.backend.spent import SPENT
from tracemill.compiler.cache import DiskCache
from tracemill.ir.errors import InternalError

SOURCE = """
from tracemill.compiler.backend.intrinsics import i64_ptr

def kernel(buffers, extents, begin, end, scratch, status):
    x = i64_ptr(buffers, 0)
    for i in range(begin, end):
        x[i] = i * {number}
    return 0
"""


def source(number: int) -> str:
    return SOURCE.format(number=number)


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def refuse_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("compiled although it was in the cache")

    monkeypatch.setattr(pool, "_crew", lambda kernels: None)
    monkeypatch.setattr(pool, "_compile", fail)


def test_memory_then_disk_then_compiler(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = KernelStore(cache)
    kernel = first.get(source(3), "kernel")
    assert first.get(source(3), "kernel") is kernel
    assert (first.counters.compiled, first.counters.loaded, first.counters.misses) == (1, 1, 1)
    assert first.compile_seconds > 0
    refuse_to_compile(monkeypatch)
    again = KernelStore(DiskCache(cache.root))
    found = again.get(source(3), "kernel")
    assert (found.key, found.symbol, found.data) == (kernel.key, kernel.symbol, kernel.data)
    assert (again.counters.compiled, again.counters.loaded, again.counters.hits) == (0, 1, 1)
    by_key = KernelStore(DiskCache(cache.root)).by_key(kernel.key)
    assert by_key is not None and by_key.symbol == kernel.symbol
    assert KernelStore(cache).by_key("0" * 32) is None


def test_source_and_object_lie_side_by_side(cache: DiskCache) -> None:
    kernel = KernelStore(cache).get(source(4), "kernel", CompileFlags(in_place=((0, 1),)))
    text = cache.path("kernel", kernel.key).with_suffix(".py").read_text()
    assert source(4) in text and kernel.symbol in text and "in_place=0=1" in text
    compile(text, "kernel.py", "exec")


def test_flags_make_different_kernels(cache: DiskCache) -> None:
    store = KernelStore(cache)
    one, other = store.get(source(3), "kernel"), store.get(source(3), "kernel", CompileFlags(noalias=False))
    assert one.key != other.key and one.symbol != other.symbol and one.address != other.address


def test_a_damaged_object_is_compiled_again(cache: DiskCache) -> None:
    kernel = KernelStore(cache).get(source(5), "kernel")
    path = cache.path("kernel", kernel.key)
    path.write_bytes(path.read_bytes()[:-40])
    store = KernelStore(DiskCache(cache.root))
    assert store.get(source(5), "kernel").data == kernel.data
    assert (store.counters.corrupt, store.counters.compiled) == (1, 1)
    assert KernelStore(DiskCache(cache.root)).by_key(kernel.key) is not None


def test_a_valid_record_with_a_useless_payload_is_compiled_again(cache: DiskCache) -> None:
    first = KernelStore(cache)
    kernel = first.get(source(6), "kernel")
    parts = first.parts(KernelRequest(source(6), "kernel"))
    for payload, theirs in ((b"no object", parts), (kernel.data, {**parts, "symbol": "other"})):
        cache.put("kernel", kernel.key, payload, theirs)
        store = KernelStore(DiskCache(cache.root))
        assert store.get(source(6), "kernel").data == kernel.data
        assert (store.counters.corrupt, store.counters.compiled) == (1, 1)


def test_without_a_disk_cache() -> None:
    store = KernelStore(None)
    assert store.get(source(7), "kernel").address
    assert (store.counters.compiled, store.counters.misses) == (1, 1)
    assert store.explain(KernelRequest(source(7), "kernel")) is None


def test_a_miss_names_the_part_that_changed(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    request = KernelRequest(source(8), "kernel")
    KernelStore(cache).get_many([request])
    assert KernelStore(cache).explain(request) is None
    monkeypatch.setattr(
        kernel_store, "toolchain", lambda: {"cpu": "another", "numba": "0", "llvmlite": "0", "python": "3"}
    )
    explanation = KernelStore(cache).explain(request)
    assert explanation is not None
    assert set(explanation.changed) == {"cpu", "numba", "llvmlite", "python"}
    assert {"source", "flags", "entry", "compiler"} <= set(explanation.same)


def test_progress_and_duplicates(cache: DiskCache) -> None:
    told: list[tuple[int, int]] = []
    store = KernelStore(cache)
    store.get(source(1), "kernel")
    kernels = store.get_many(
        [KernelRequest(source(n), "kernel") for n in (1, 2, 3, 2)], progress=lambda *at: told.append(at)
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert kernels[1] is kernels[3]


@pytest.fixture
def crews(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Says how many helpers there are; those of a test end with it."""
    monkeypatch.setattr(pool, "_current", None)
    monkeypatch.setattr(pool, "_runner_task", None)
    monkeypatch.setattr(pool, "MINIMUM", 1)

    def use(count: int) -> None:
        monkeypatch.setenv("TRACEMILL_COMPILERS", str(count))

    use(1)
    yield use
    if pool._current is not None:
        pool._current.close()


def refuse(request: KernelRequest) -> bytes:
    raise AssertionError("compiled here")


@pytest.mark.parametrize("count", [1, 2])
def test_helper_processes_give_the_same_objects(
    count: int, crews: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [KernelRequest(source(n), "kernel") for n in range(20, 28)]
    want = dict(pool.compile_all(requests, parallel=False))
    crews(count)
    monkeypatch.setattr(pool, "_compile", refuse)
    before = SPENT.numba, SPENT.llvm
    assert dict(pool.compile_all(requests)) == want
    assert SPENT.numba > before[0] and SPENT.llvm > before[1], "helpers report their time"
    crew = pool._current
    assert dict(pool.compile_all(requests[:2])) == {0: want[0], 1: want[1]}
    assert pool._current is crew, "the helpers stay"


def test_the_runner_is_compiled_meanwhile(crews: Callable[[int], None]) -> None:
    pool.prepare_runner()
    assert pool._current is not None
    found = pool.compile_runner()
    assert pool._runner_task is None
    assert found == pool.compile_runner(), "made here the second time"


@pytest.mark.parametrize("program", [
    "import sys; sys.exit(3)",
    "import sys; sys.stdout.write('x' * 100)",
    "import sys; sys.stdin.buffer.read(20)",
])
def test_helpers_that_die_or_cannot_start_cost_nothing(
    program: str, crews: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [KernelRequest(source(n), "kernel") for n in range(30, 34)]
    want = dict(pool.compile_all(requests, parallel=False))
    crews(2)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(pool, "_start", start)
    assert dict(pool.compile_all(requests)) == want
    monkeypatch.setattr(pool, "_current", None)
    monkeypatch.undo()
    monkeypatch.setattr(pool, "MINIMUM", 1)
    monkeypatch.setattr(pool, "_current", None)
    monkeypatch.setenv("TRACEMILL_COMPILERS", "1")
    monkeypatch.setattr(pool.sys, "executable", "/nowhere/python")
    assert dict(pool.compile_all(requests)) == want


def test_an_idle_helper_ends_and_another_takes_over(
    crews: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IDLE", 0.05)
    request = KernelRequest(source(45), "kernel")
    first = dict(pool.compile_all([request]))
    crew = pool._current
    assert crew is not None
    for _ in range(200):
        if not crew.works():
            break
        threading.Event().wait(0.05)
    assert not crew.works() and crew._processes[0].wait(10) == 0
    monkeypatch.setattr(pool, "IDLE", 20.0)
    assert dict(pool.compile_all([request])) == first
    assert pool._current is not crew


def test_an_error_in_a_helper_is_raised_here(crews: Callable[[int], None]) -> None:
    bad = SOURCE.format(number="missing_name")
    requests = [
        KernelRequest(source(40), "kernel"),
        KernelRequest(bad, "kernel"),
        KernelRequest(source(41), "kernel"),
    ]
    with pytest.raises(InternalError, match="missing_name"):
        dict(pool.compile_all(requests))


def test_helpers_only_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEMILL_COMPILERS", raising=False)
    for cores, wanted in (({0, 1, 2, 3}, 4), ({0}, 0), (set(range(64)), pool.MOST_HELPERS)):
        monkeypatch.setattr(pool.os, "sched_getaffinity", lambda pid, cores=cores: cores, raising=False)
        assert pool.helper_count() == wanted
    monkeypatch.setenv("TRACEMILL_COMPILERS", "3")
    assert pool.helper_count() == 3
    monkeypatch.setattr(pool, "_current", None)
    monkeypatch.setitem(sys.modules, "tracemill.compiler.backend.frontend", sys)  # Numba is imported
    assert pool._crew(pool.MINIMUM - 1) is None
    monkeypatch.setenv("TRACEMILL_COMPILERS", "0")
    assert pool._crew(500) is None


WARM = """
import sys
from tracemill.compiler.backend.kernel_store import KernelStore
from tracemill.compiler.backend.spent import SPENT
from tracemill.compiler.cache import DiskCache
store = KernelStore(DiskCache(sys.argv[1]))
kernel = store.get(open(sys.argv[2]).read(), "kernel")
import ctypes
import numpy as np
x = np.zeros(10, np.int64)
table, status = np.array([x.ctypes.data]), np.zeros(4, np.int64)
call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2)
assert call(kernel.address)(table.ctypes.data, status.ctypes.data, 0, 10, None, status.ctypes.data) == 0
print(x.tolist())
print(store.counters.compiled, store.counters.loaded)
print([name for name in ("numba", "llvmlite", "networkx", "lark") if name in sys.modules])
"""


def test_a_warm_process_imports_no_compiler(cache: DiskCache, tmp_path: Path) -> None:
    KernelStore(cache).get(source(9), "kernel")
    text = tmp_path / "kernel.py"
    text.write_text(source(9))
    command = [sys.executable, "-c", WARM, str(cache.root), str(text)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values, counts, modules = done.stdout.splitlines()
    assert values == str([9 * i for i in range(10)])
    assert counts == "0 1"
    if sys.platform == "linux":
        assert modules == "[]"
