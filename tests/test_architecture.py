"""The rules of the layout: who may import whom, what is packaged, what a file may grow to."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "ir", "compiler", "runtime", "frontends")
# folder -> folders it may import; `compiler.cli` may use everything, it is the program around the library.
MAY_IMPORT = {
    "ir": {"ir"},
    "runtime": {"runtime", "ir"},
    "compiler": {"compiler", "ir", "runtime"},
    "frontends": {"frontends", "ir", "compiler", "runtime"},
}
# What frontends may use of the compiler and the runtime: the front doors.
FRONT_DOORS = {"compiler.driver", "compiler.cache", "runtime.buffers", "runtime.interrupts", "runtime.workers"}
# A warm process must not import these; so no module on its way may do so at the top.
HEAVY = {"numba", "networkx", "lark"}


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Absolute names of imported modules; relative ones resolved against the folder layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = list(path.relative_to(ROOT).parent.parts)
    nodes = tree.body if top_level else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module or "", node.lineno
                continue
            base = package[: len(package) - node.level + 1]
            inside = [*base, *(node.module or "").split(".")] if node.module else base
            for a in node.names:
                target = ROOT.joinpath(*inside, a.name)
                is_module = target.with_suffix(".py").exists() or target.is_dir()
                yield ".".join(["", *inside, *([a.name] if is_module else [])]), node.lineno


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_dependencies_run_one_way(folder: str) -> None:
    wrong = []
    for path in _files(folder):
        cli = path.is_relative_to(ROOT / "compiler" / "cli")
        for name, line in _imports(path):
            parts = [p for p in name.split(".") if p]
            if not name.startswith(".") or not parts or parts[0] not in FOLDERS or cli:
                continue
            if parts[0] not in MAY_IMPORT[folder]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            if (
                folder == "frontends"
                and parts[0] in ("compiler", "runtime")
                and ".".join(parts[:2]) not in FRONT_DOORS
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} goes past the front door: {name}")
    assert not wrong, "\n".join(wrong)


def test_no_bare_imports() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for folder in (*FOLDERS, "tests", "examples", "benchmarks")
        for path in _files(folder)
        for name, line in _imports(path)
        if name.split(".")[0] in FOLDERS
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_is_listed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed, mapped = set(config["packages"]), config["package-dir"]
    found = {"tracemill"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(["tracemill", *(parts[1:] if folder == "api" else parts)]))
    assert listed == found
    for package, folder in mapped.items():
        assert (ROOT / folder / "__init__.py").exists(), package


def test_files_stay_readable() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for folder in FOLDERS
        for p in _files(folder)
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 650
    }
    assert not long, f"split these along their real seams: {long}"


def test_there_is_no_folder_that_shadows_the_package() -> None:
    assert not (ROOT / "tracemill").exists()
