"""Random graphs through the whole pipeline: values, and bits that depend on nothing but the graph.

A failure names its seed; `python tests/differential/fuzz.py --show SEED` prints the graph. The same program runs
thousands of graphs. Most graphs here run as plain Python, which saves compiling two hundred kernels for each.
"""

from __future__ import annotations

import pytest
from checks import check_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NODES = 20


@pytest.mark.parametrize("seed", range(20))
def test_graph_in_python(seed: int) -> None:
    check_all(seed, NODES, plain=True)


@pytest.mark.parametrize("seed", range(2))
def test_graph_compiled(seed: int) -> None:
    check_all(seed, NODES)


@given(st.integers(0, 10**9))
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
def test_other_graphs(seed: int) -> None:
    check_all(seed, NODES, plain=True)
