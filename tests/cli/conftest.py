"""The command line, called in this process (fast) or in one of its own (where process-level behaviour matters)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]

LINEAR = """\
graph linear (%x: f32[B,3] batch, %w: f32[3,2] parameter, %scale: f32[] hyper = 0.5) {
  %0 = dot(%x, %w) {contract_a=[1], contract_b=[0]}
  %1 = mul(%0, %scale)
  %2 = exp(%1)
  return out = %2
}
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("opt", "x.ir")` in this process."""
    from tracemill.compiler.cli import cli
    from tracemill.compiler.cli.report import guarded

    def run(*args: object) -> Result:
        capsys.readouterr()
        code = guarded(lambda: cli([str(a) for a in args], standalone_mode=False))
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """`process("run", "x.py")` in a process of its own, in the test's folder."""

    def run(*args: object, env: dict[str, str] | None = None, python: tuple[str, ...] = ("-m", "tracemill")) -> Result:
        done = subprocess.run([sys.executable, *python, *map(str, args)], cwd=tmp_path, capture_output=True, text=True,
                              timeout=120, env={**os.environ, **(env or {})}, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """A small graph in a file."""
    file = tmp_path / "linear.ir"
    file.write_text(LINEAR)
    return file
