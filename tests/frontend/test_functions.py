"""Every expression has the value, dtype, gradient or error that PyTorch recorded in `reference.json`."""

from __future__ import annotations

import builtins
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tracemill as tm

_HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("frontend_expressions", _HERE / "expressions.py")
assert _spec is not None and _spec.loader is not None
expressions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(expressions)
REFERENCE = json.loads((_HERE / "reference.json").read_text())


def same(want: Any, got: Any) -> bool:
    """Equal, numbers within float32's rounding."""
    if isinstance(want, dict):
        return isinstance(got, dict) and want.keys() == got.keys() and all(same(want[k], got[k]) for k in want)
    if isinstance(want, list):
        return isinstance(got, list) and len(want) == len(got) and all(map(same, want, got))
    if isinstance(want, float) and isinstance(got, (int, float)):
        if math.isnan(want):
            return math.isnan(got)
        return want == got or abs(want - got) <= 2e-5 * max(1.0, abs(want))
    return bool(want == got)


@pytest.mark.parametrize("expression", expressions.VALUES)
def test_value(expression: str) -> None:
    got = expressions.plain(eval(expression, expressions.operands(tm)))
    assert same(REFERENCE["values"][expression], json.loads(json.dumps(got)))


@pytest.mark.parametrize("expression", expressions.GRADIENTS)
def test_gradient(expression: str) -> None:
    names = expressions.operands(tm)
    a, b = names["A"].requires_grad_(), names["B"].requires_grad_()
    eval(expression, names).backward()
    got = [None if x.grad is None else expressions.plain(x.grad) for x in (a, b)]
    assert same(REFERENCE["gradients"][expression], got)


@pytest.mark.parametrize("expression", expressions.ERRORS)
def test_error(expression: str) -> None:
    with pytest.raises(getattr(builtins, REFERENCE["errors"][expression])):
        eval(expression, expressions.operands(tm))
