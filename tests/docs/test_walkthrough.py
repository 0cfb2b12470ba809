"""docs/walkthrough.md and README.md say what happens: their scripts are written to files, their commands run, and
what is printed is compared.

A block ` ```python NAME ` is the file NAME. In a block ` ```console ` lines after `$ ` are commands, and what follows
each is what it prints. `--update-golden` writes what they print now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = 'tracemill() { "$PYTHON" -m tracemill "$@"; }\npython() { "$PYTHON" "$@"; }\n'


def execute(page: str, folder: Path) -> str:
    """The page with every console block's output replaced by what its commands print in `folder`."""
    def block(match: re.Match[str]) -> str:
        kind, name, text = match.groups()
        if kind == "python" and name:
            (folder / name).write_text(text, encoding="utf-8")
        if kind != "console":
            return match.group(0)
        commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"$ {c}\n{_output(c, folder)}" for c in commands) + "```"

    return _BLOCK.sub(block, page)


def _output(command: str, folder: Path) -> str:
    env = {**os.environ, "PYTHON": sys.executable, "TRACEMILL_CACHE_DIR": str(folder / "cache"), "LC_ALL": "C"}
    done = subprocess.run(["bash", "-c", _SHELL + command], cwd=folder, env=env, text=True, timeout=120, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    text = done.stdout.replace(str(folder), ".").replace("\n```", "\n'''")
    return text if not text or text.endswith("\n") else text + "\n"


def _stable(page: str) -> str:
    """Without what NumPy's own order of summation decides, which depends on the CPU."""
    return re.sub(r"(difference|square) \d\S*", r"\1 #", page)


@pytest.mark.skipif(sys.platform == "win32", reason="the page's commands need a POSIX shell")
@pytest.mark.parametrize("name", ["README.md", "docs/walkthrough.md"])
def test_the_page_is_true(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = ROOT / name
    page = file.read_text(encoding="utf-8")
    now = execute(page, tmp_path)
    if request.config.getoption("--update-golden"):
        file.write_text(now, encoding="utf-8")
        return
    assert _stable(now) == _stable(page), "read the difference, then accept it with --update-golden"
