"""The native runner's object: one function without undefined symbols, cached, loaded without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys

from tracemill.compiler.backend.runner_source import compile_runner
from tracemill.runtime import elf, layout

CODE = """
import sys
from tracemill.compiler.backend import native_runner
from tracemill.compiler.backend.native_runner import load_runner
from tracemill.compiler.cache import DiskCache
native_runner.compiler_digest = lambda memo: "a compiler"
address = load_runner(DiskCache(sys.argv[1]))
assert load_runner() == address
print("numba" in sys.modules)
"""


def test_object_is_closed():
    parsed = elf.read(compile_runner())
    assert parsed.undefined() == []
    assert parsed.defined() == [layout.RUNNER_SYMBOL]


def test_runner_is_cached(tmp_path):
    def load() -> str:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(tmp_path / "cache")], capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert load() == "True"
    assert load() == "False"
    (record,) = (tmp_path / "cache" / "kernels").glob("*.o")
    data = bytearray(record.read_bytes())
    data[100] ^= 255
    record.write_bytes(data)
    assert load() == "True"
    assert load() == "False"
