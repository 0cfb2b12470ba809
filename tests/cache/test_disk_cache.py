"""The store on disk: what it keeps, what it refuses to trust, how it behaves when the disk does not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from tracemill.compiler import cache as cache_module
from tracemill.compiler import fingerprint
from tracemill.compiler.cache import (
    CacheWarning,
    DiskCache,
    cache_key,
    default_cache,
    default_root,
    size_limit,
)
from tracemill.ir.errors import CacheError, TracemillError

PARTS = {"entry": "kernel", "source": "abc", "cpu": "x"}


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def test_what_is_put_is_got(cache: DiskCache) -> None:
    key = cache_key(PARTS)
    assert cache.get("kernel", key) is None
    assert cache.put("kernel", key, b"\x7fELF code", PARTS, "def kernel(): ...\n")
    record = cache.get("kernel", key)
    assert record is not None and record.payload == b"\x7fELF code" and record.parts == PARTS
    assert cache.path("kernel", key).read_bytes().startswith(b"\x7fELF")
    assert cache.path("kernel", key).with_suffix(".py").read_text() == "def kernel(): ...\n"
    assert cache.get("plan", key) is None
    assert cache.put("plan", key, b"", {})
    assert cache.get("plan", key).payload == b""  # type: ignore[union-attr]
    counters = cache.counters["kernel"]
    assert (counters.hits, counters.misses, counters.corrupt) == (1, 1, 0)
    assert not list(cache.root.rglob("*.tmp"))


def test_folder_is_private(cache: DiskCache) -> None:
    assert cache.root.stat().st_mode & 0o777 == 0o700
    cache.put("kernel", "k", b"x", {}, "source")
    assert {p.stat().st_mode & 0o777 for p in (cache.root / "kernels").iterdir()} == {0o600}


def test_keys_depend_on_every_part_but_not_on_order() -> None:
    assert cache_key({"a": "1", "b": "2"}) == cache_key({"b": "2", "a": "1"})
    keys = [
        cache_key(p) for p in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": ""}, {"a": "", "1": ""})
    ]
    assert len(set(keys)) == len(keys)


def damage_truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_flip_payload(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def damage_flip_trailer(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 0x80])


def damage_empty(data: bytes) -> bytes:
    return b""


def damage_foreign(data: bytes) -> bytes:
    return b"#!/bin/sh\necho this is somebody else's file\n" * 10


def damage_append(data: bytes) -> bytes:
    return data + b"\0"


DAMAGES = [
    damage_truncate,
    damage_flip_payload,
    damage_flip_trailer,
    damage_empty,
    damage_foreign,
    damage_append,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_records_are_removed_not_used(damage: Any, cache: DiskCache) -> None:
    cache.put("kernel", "k", b"code" * 100, PARTS, "source")
    path = cache.path("kernel", "k")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("kernel", "k") is None
    assert not path.exists() and not path.with_suffix(".py").exists()
    assert cache.counters["kernel"].corrupt == 1
    assert cache.put("kernel", "k", b"code" * 100, PARTS)
    assert cache.get("kernel", "k") is not None


def test_every_single_bit_flip_is_noticed(cache: DiskCache) -> None:
    cache.put("plan", "k", b"plan", {"a": "b"})
    good = cache.path("plan", "k").read_bytes()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        cache.path("plan", "k").write_bytes(bytes(bad))
        assert cache.get("plan", "k") is None, bit


def test_a_record_of_another_kind_is_foreign(cache: DiskCache) -> None:
    cache.put("plan", "k", b"code", PARTS)
    os.replace(cache.path("plan", "k"), cache.path("kernel", "k"))
    assert cache.get("kernel", "k") is None


WRITER = """
import sys
from tracemill.compiler.cache import DiskCache
cache = DiskCache(sys.argv[1])
for round in range(60):
    for key in range(5):
        payload = bytes([key]) * 30000
        cache.put("kernel", f"k{key}", payload, {"key": str(key)}, "x" * 20000)
        record = cache.get("kernel", f"k{key}")
        assert record is not None and record.payload == payload, "torn record"
assert cache.counters["kernel"].corrupt == 0
"""


def test_two_writers_and_a_reader_never_see_half_a_record(cache: DiskCache) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(cache.root)], stderr=subprocess.PIPE)
        for _ in "ab"
    ]
    while any(writer.poll() is None for writer in writers):
        for key in range(5):
            record = cache.get("kernel", f"k{key}")
            assert record is None or record.payload == bytes([key]) * 30000
    for writer in writers:
        assert writer.wait() == 0, writer.stderr.read().decode()  # type: ignore[union-attr]
        writer.stderr.close()  # type: ignore[union-attr]
    assert cache.counters["kernel"].corrupt == 0
    assert not list(cache.root.rglob("*.tmp"))


def fail_with(number: int) -> Any:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_failing_writes_warn_once_and_leave_nothing(
    number: int, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("kernel", "before", b"old", PARTS)
    monkeypatch.setattr(cache_module.os, "replace", fail_with(number))
    with pytest.warns(CacheWarning, match="cannot be written") as caught:
        assert not cache.put("kernel", "k", b"code", PARTS, "source")
        assert not cache.put("kernel", "l", b"code", PARTS, "source")
    assert len(caught) == 1
    assert not cache.info().writable
    assert cache.get("kernel", "before").payload == b"old"  # type: ignore[union-attr]
    assert not list(cache.root.rglob("*.tmp"))


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(CacheWarning, match="TRACEMILL_CACHE_DIR"):
        cache = DiskCache(tmp_path / "file" / "cache")
    assert not cache.put("kernel", "k", b"code", PARTS)
    assert cache.get("kernel", "k") is None


def test_a_read_only_folder_is_read(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put("kernel", "k", b"code", PARTS)
    # Modes do not stop root, which tests may run as.
    monkeypatch.setattr(cache_module.os, "open", fail_with(errno.EROFS))
    reader = DiskCache(cache.root)
    assert reader.get("kernel", "k") is not None
    with pytest.warns(CacheWarning):
        reader.put("kernel", "other", b"code", PARTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.put("kernel", "other", b"code", PARTS)


def test_folders_of_others_are_refused(cache: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(cache.root, 0o777)
    with pytest.raises(CacheError, match="can be written by other users") as error:
        DiskCache(cache.root)
    assert "chmod go-w" in str(error.value)
    os.chmod(cache.root, 0o700)
    mine = os.getuid()
    monkeypatch.setattr(cache_module.os, "getuid", lambda: mine + 1)
    with pytest.raises(CacheError, match=f"belongs to another user \\(uid {mine}\\)"):
        DiskCache(cache.root)
    monkeypatch.undo()
    with pytest.raises(CacheError, match="not a folder"), warnings.catch_warnings():
        (cache.root / "file").write_text("")
        DiskCache(cache.root / "file")


def test_the_folder_may_vanish_meanwhile(cache: DiskCache) -> None:
    import shutil

    shutil.rmtree(cache.root)
    assert not cache.put("kernel", "k", b"code", PARTS)
    assert cache.put("kernel", "k", b"code", PARTS)
    assert cache.get("kernel", "k") is not None


def test_least_recently_used_records_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", limit=40 * 4096)
    for n in range(18):
        cache.put("kernel", f"k{n}", b"x" * 100, PARTS, "source")  # two blocks each
        when = 1_600_000_000 + n
        os.utime(cache.path("kernel", f"k{n}"), (when, when))
    assert cache.get("kernel", "k0") is not None  # used now: moves to the front
    for n in range(18, 30):
        cache.put("plan", f"k{n}", b"x" * 100, PARTS)
    info = cache.info()
    assert info.size <= 40 * 4096
    assert cache.get("kernel", "k0") is not None
    assert cache.get("kernel", "k1") is None
    assert cache.get("plan", "k29") is not None
    assert cache.counters["kernel"].evicted > 0
    assert not cache.path("kernel", "k1").with_suffix(".py").exists()


def test_the_bound_holds_over_many_short_processes(tmp_path: Path) -> None:
    for n in range(60):
        DiskCache(tmp_path / "cache", limit=20 * 4096).put("plan", f"k{n}", b"x" * 5000, PARTS)
        assert DiskCache(tmp_path / "cache", limit=20 * 4096).info().size <= 20 * 4096


def test_eviction_removes_what_dead_processes_left(cache: DiskCache) -> None:
    old, new = cache.root / "kernels" / ".k.o.1-aa.tmp", cache.root / "kernels" / ".k.o.2-bb.tmp"
    orphan = cache.root / "kernels" / "gone.py"
    for path in (old, new, orphan):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(orphan, (1, 1))
    cache.evict()
    assert not old.exists() and new.exists() and not orphan.exists()


def test_info_and_clear(cache: DiskCache) -> None:
    cache.put("kernel", "a", b"code", PARTS, "source")
    cache.put("plan", "b", b"plan", {})
    (cache.root / "notes.txt").write_text("not ours")
    info = cache.info()
    assert (info.kernels, info.plans, info.size) == (1, 1, 3 * 4096)
    assert cache.clear() == 2
    assert (cache.info().kernels, cache.info().plans, cache.info().size) == (0, 0, 0)
    assert (cache.root / "notes.txt").exists()


def test_a_miss_is_explained(cache: DiskCache) -> None:
    assert cache.explain("kernel", PARTS).nearest is None
    cache.put("kernel", "near", b"", {**PARTS, "cpu": "y", "numba": "1"})
    cache.put("kernel", "far", b"", {**PARTS, "cpu": "z", "source": "other", "entry": "f"})
    explanation = cache.explain("kernel", PARTS)
    assert explanation.nearest == "near"
    assert explanation.same == ("entry", "source")
    assert explanation.changed == {"cpu": ("y", "x"), "numba": ("1", None)}
    assert "cpu: y -> x" in str(explanation) and "numba: 1 -> (absent)" in str(explanation)


def test_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEMILL_CACHE_DIR", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    assert default_cache() is default_cache()
    assert default_cache().root == tmp_path / "mine"
    monkeypatch.setenv("TRACEMILL_CACHE_SIZE", "100K")
    assert default_cache().limit == 102400
    for text, size in (("", 512 << 20), ("3", 3 << 20), ("1.5g", 3 << 29), ("0", 0)):
        monkeypatch.setenv("TRACEMILL_CACHE_SIZE", text)
        assert size_limit() == size
    for text in ("many", "1T", "nan", "-inf"):
        monkeypatch.setenv("TRACEMILL_CACHE_SIZE", text)
        with pytest.raises(TracemillError, match="TRACEMILL_CACHE_SIZE"):
            size_limit()


def test_the_default_folder_is_that_of_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs import user_cache_dir

    monkeypatch.delenv("TRACEMILL_CACHE_DIR", raising=False)
    assert default_root() == Path(user_cache_dir("tracemill", appauthor=False))
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_root() == Path(user_cache_dir("tracemill", appauthor=False))


def test_size_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", limit=0)
    assert not cache.put("plan", "k", b"x", {})
    assert cache.info().plans == 0


def test_compiler_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("ir", "compiler", "runtime"):
        (tmp_path / part / "sub").mkdir(parents=True)
        (tmp_path / part / "sub" / "a.py").write_text(part)
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path / "compiler")
    memo = tmp_path / "memo"
    memo.mkdir()

    def answer(note: Path | None) -> str:
        fingerprint.compiler_digest.cache_clear()
        return fingerprint.compiler_digest(note)

    try:
        first = answer(memo)
        assert answer(memo) == answer(None) == first
        (tmp_path / "ir" / "sub" / "a.py").touch()  # another time, the same contents
        assert answer(memo) == first
        (tmp_path / "ir" / "sub" / "a.py").write_text("changed")
        assert answer(memo) != first
        (memo / "compiler-digest").write_text("garbage")
        assert answer(memo) == answer(None)
    finally:
        fingerprint.compiler_digest.cache_clear()


def test_cpu_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEMILL_CPU", raising=False)
    host = fingerprint.cpu_identity()
    monkeypatch.setenv("TRACEMILL_CPU", "native")
    assert fingerprint.cpu_identity() == host
    monkeypatch.setenv("TRACEMILL_CPU", "x86-64-v2")
    assert fingerprint.cpu_identity().endswith(" x86-64-v2") and fingerprint.cpu_identity() != host


def test_versions_are_read_without_importing() -> None:
    import llvmlite
    import numba

    assert fingerprint.package_version("numba") == numba.__version__
    assert fingerprint.package_version("llvmlite") == llvmlite.__version__
    assert fingerprint.package_version("click")


def test_importing_the_cache_needs_the_standard_library_only() -> None:
    program = (
        "import sys; import tracemill.compiler.cache as c; c.toolchain(); c.compiler_digest()\n"
        "unwanted = ('numba', 'llvmlite', 'numpy', 'networkx', 'lark', 'platformdirs')\n"
        "print(sorted(m for m in unwanted if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['numpy']"), done.stdout
