"""Random graphs through the whole pipeline: values, and bits that depend on nothing but the graph.

A failure names its seed; `python tests/differential/fuzz.py --show SEED` prints the graph. The same program runs
thousands of graphs. Most graphs here run as plain Python, which saves compiling two hundred kernels for each.
"""

from __future__ import annotations

import pytest
from checks import check_all, check_bits, check_plans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import random_graph
from tracemill.ir.dtypes import DType, bf16, f16

NODES = 20


@pytest.mark.parametrize("seed", range(20))
def test_graph_in_python(seed: int) -> None:
    check_all(seed, NODES, plain=True)


@pytest.mark.parametrize("seed", range(2))
def test_graph_compiled(seed: int) -> None:
    check_all(seed, NODES)


@pytest.mark.parametrize(("seed", "dtype"), [(0, f16), (1, bf16)])
def test_narrow_graph(seed: int, dtype: DType) -> None:
    """Sixteen-bit floats round after every operator, fused or not."""
    r = random_graph(seed, dtype, NODES)
    check_plans(r)
    check_bits(r, plain=True)


@given(st.integers(0, 10**9))
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
def test_other_graphs(seed: int) -> None:
    check_all(seed, NODES, plain=True)
