"""The package as users get it: source → sdist → wheel, its contents, and its use from a folder with the same names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"api": "tracemill", "ir": "tracemill/ir", "compiler": "tracemill/compiler", "runtime": "tracemill/runtime",
           "frontends": "tracemill/frontends"}
LEFT_OUT = ("__pycache__", "*.egg-info", "build", "dist", ".*")

USE = """\
import runtime, ir, compiler
import tracemill as tm
from tracemill import nn, optim

model = nn.Linear(2, 1)
optimizer = optim.SGD(model.parameters(), lr=0.1)
loss = (model(tm.ones(4, 2)) ** 2).mean()
loss.backward()
optimizer.step()
print(runtime.X, ir.Y, compiler.Z, tm.__file__, loss.item() >= 0)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel built from it."""
    for tool in ("build", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"building needs {tool}, which is not installed")
    source = tmp_path_factory.mktemp("source")
    for entry in (*FOLDERS, "tests", "docs", "examples"):
        shutil.copytree(ROOT / entry, source / entry, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    # The source without its own build folder: built from the sdist alone, in this environment, without a network.
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "-o", "dist", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return source / "dist"


def _only(dist: Path, pattern: str) -> Path:
    (found,) = dist.glob(pattern)
    return found


def _sources() -> set[str]:
    """Every module and data file of the package, as its path in the wheel."""
    return {f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
            for folder, package in FOLDERS.items() for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".lark", ".typed") and "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(_only(dist, "*.whl")) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        (entry,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
        assert "tracemill = tracemill.compiler.cli:main" in wheel.read(entry).decode()
    assert names == _sources()
    assert {"tracemill/py.typed", "tracemill/ir/text/grammar.lark", "tracemill/compiler/passes/pipeline.lark",
            "tracemill/frontends/python/torch_shim/torch.py", "tracemill/__main__.py"} <= names


def test_the_sdist_builds_alone(dist: Path) -> None:
    with tarfile.open(_only(dist, "*.tar.gz")) as sdist:
        names = {n.split("/", 1)[1] for n in sdist.getnames() if "/" in n}
    assert {"pyproject.toml", "README.md", "LICENSE", "ir/text/grammar.lark"} <= names


def test_it_works_from_a_folder_with_the_same_names(dist: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    with zipfile.ZipFile(_only(dist, "*.whl")) as wheel:
        wheel.extractall(site)
    (work / "ir").mkdir(parents=True)
    (work / "runtime.py").write_text("X = 1\n")
    (work / "compiler.py").write_text("Z = 3\n")
    (work / "ir" / "__init__.py").write_text("Y = 2\n")
    (work / "use.py").write_text(USE)
    env = {**os.environ, "PYTHONPATH": str(site)}
    for command in (["use.py"], ["-m", "tracemill", "run", "use.py"]):
        done = subprocess.run([sys.executable, *command], cwd=work, env=env, capture_output=True, text=True,
                              timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["1", "2", "3", str(site / "tracemill" / "__init__.py"), "True"]
