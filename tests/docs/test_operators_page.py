"""docs/operators.md is what the operator table says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from tracemill.ir.opdef import Kind, table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_operators", DOCS / "generate_operators.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    page = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert page == _generator().generate(), "run `python docs/generate_operators.py`"


def test_every_operator_says_what_it_does() -> None:
    assert [name for name, op in table().items() if len(op.doc) < 3] == []


def test_errors_are_within_two_units() -> None:
    worst = _generator().worst_cases()
    inexact = {name for name, op in table().items() if op.kind is Kind.ELEMENTWISE and not op.exact}
    assert inexact <= set(worst)
    for name, cells in worst.items():
        assert set(cells) == {"f32", "f64"}, name
        assert all(float(ulp) <= 2.0 for ulp, _ in cells.values()), name
