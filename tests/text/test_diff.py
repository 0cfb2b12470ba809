"""The structural diff shows real differences only, however values are numbered."""

from __future__ import annotations

from tracemill.ir.diff import diff_graphs
from tracemill.ir.text import parse_graph

A = """\
graph g (%x: f32[4] batch, %w: f32[4] parameter) {
  %0 = mul(%x, %w)
  %1 = exp(%0)
  %2 = add(%1, %x)
  %3 = sum(%2) {axes=[0]}
  return loss = %3
}
"""


def test_equal_graphs_have_no_diff() -> None:
    assert diff_graphs(parse_graph(A), parse_graph(A.replace("%2", "%other"))) == ""


def test_an_inserted_operator_does_not_rename_the_rest() -> None:
    b = A.replace("%1 = exp(%0)", "%n = neg(%0)\n  %1 = exp(%n)")
    diff = diff_graphs(parse_graph(A), parse_graph(b), context=0)
    changed = [line for line in diff.splitlines() if line[0] in "+-"]
    assert changed == ["+ %1 = neg(%0) : f32[4]", "- %1 = exp(%0) : f32[4]", "+ %2 = exp(%1) : f32[4]"]


def test_signature_and_outputs() -> None:
    b = A.replace("%w: f32[4] parameter", "%w: f32[4] state").replace("loss = %3", "loss = %3, w = %2 -> %w")
    diff = diff_graphs(parse_graph(A), parse_graph(b))
    assert "- input %w: f32[4] parameter" in diff and "+ input %w: f32[4] state" in diff
    assert "+ output w: f32[4] -> %w" in diff


def test_a_changed_attribute() -> None:
    a, b = (
        "graph g (%x: f32[4]) { %0 = mul(%x, f32(2.0)) return y = %0 }",
        "graph g (%x: f32[4]) { %0 = mul(%x, f32(3.0)) return y = %0 }",
    )
    assert diff_graphs(parse_graph(a), parse_graph(b)) == (
        "- %0 = mul(%x, f32(2.0)) : f32[4]\n+ %0 = mul(%x, f32(3.0)) : f32[4]\n"
    )
