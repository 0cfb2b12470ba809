"""The runtime stands alone: neither the compiler nor a frontend, and no compiler library on the warm path."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tracemill.runtime

FILES = sorted(Path(tracemill.runtime.__file__).parent.glob("*.py"))
FROM_IR = {"ir.dims", "ir.dtypes", "ir.errors"}
LIBRARIES = {"numpy", "llvmlite"}


def imported(tree: ast.AST) -> set[str]:
    """Names of the imported modules; relative ones from the package's root, `runtime` left out."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 2:
                found |= {node.module} if node.module else {alias.name for alias in node.names}
            elif node.level == 0:
                found.add(node.module or "")
            else:
                assert node.level == 1
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports(path):
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        root = name.split(".")[0]
        assert name in FROM_IR or root in LIBRARIES or root in sys.stdlib_module_names, (
            f"{path.name} imports {name}"
        )
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert "llvmlite" not in {name.split(".")[0] for node in top for name in imported(node)}


def test_importing_the_runtime_is_light():
    code = (
        "import sys, tracemill.runtime.executor, tracemill.runtime.plan_format, tracemill.runtime.device;"
        "print([m for m in ('numba', 'llvmlite', 'networkx', 'lark', 'rich') if m in sys.modules],"
        " [m for m in sys.modules if m.startswith(('tracemill.compiler', 'tracemill.frontends'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("] [")[0] == "["
