"""The examples in docstrings of all modules run and say the truth; every module can be imported by itself."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest
import tracemill

_PROGRAMS = ("__main__",)  # importing these runs them


def _modules() -> Iterator[str]:
    yield "tracemill"
    for package in ("", ".ir", ".compiler", ".runtime", ".frontends"):
        root = importlib.import_module(f"tracemill{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            if found.name.rsplit(".", 1)[-1] not in _PROGRAMS:
                yield found.name


@pytest.mark.parametrize("name", sorted(set(_modules())))
def test_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=options)
    out: list[str] = []
    for case in finder.find(module, module.__name__, extraglobs={"tm": tracemill}):
        runner.run(case, out=out.append)
    assert not runner.failures, "".join(out)
