"""A structural diff of two graphs that a person can read: aligned by operator and type, then by operands.

A textual diff of two dumps drowns in renumbered values: one new line renames everything below it. Here lines are
aligned by what they compute locally (operator, attributes, type); aligned lines count as equal when their operands
are aligned too, so only real differences show.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from .graph import Graph, InputSpec
from .node import Node
from .text.printer import statement_lines


def diff_graphs(a: Graph, b: Graph, *, context: int = 2) -> str:
    """The differences of two graphs, `-` for lines of `a`, `+` for lines of `b`; empty if they are equal.

    Args:
        context: unchanged lines to show around each difference.
    """
    lines = _signature(a, b)
    rows = _body(a, b)
    if any(mark != " " for mark, _ in rows):
        lines += _hunks(rows, context)
    lines += _outputs(a, b)
    return "\n".join(lines) + "\n" if lines else ""


def _spec(s: InputSpec) -> str:
    default = "" if s.default is None else f" = {s.default!r}"
    return f"%{s.name}: {s.type} {s.role}{default}"


def _sequence(label: str, a: Sequence[str], b: Sequence[str]) -> list[str]:
    found: list[str] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if tag != "equal":
            found += [f"- {label} {t}" for t in a[i1:i2]] + [f"+ {label} {t}" for t in b[j1:j2]]
    return found


def _signature(a: Graph, b: Graph) -> list[str]:
    found = [f"- graph {a.name}", f"+ graph {b.name}"] if a.name != b.name else []
    found += _sequence("size", [f"{n} = {v}" for n, v in a.sizes], [f"{n} = {v}" for n, v in b.sizes])
    return found + _sequence("input", [_spec(s) for s in a.inputs], [_spec(s) for s in b.inputs])


def _local(node: Node) -> tuple[object, ...]:
    """What a line computes, operands left out."""
    return (node.op.name, tuple(node.attrs), str(node.type), len(node.inputs))


def _body(a: Graph, b: Graph) -> list[tuple[str, str]]:
    left, right = statement_lines(a), statement_lines(b)
    keys_a, keys_b = [_local(n) for n, _ in left], [_local(n) for n, _ in right]
    codes = SequenceMatcher(a=keys_a, b=keys_b, autojunk=False).get_opcodes()
    partner = _partners(a, b)
    for tag, i1, i2, j1, _ in codes:
        if tag == "equal":
            partner.update({left[i][0]: right[j1 + i - i1][0] for i in range(i1, i2)})
    rows: list[tuple[str, str]] = []
    for tag, i1, i2, j1, j2 in codes:
        if tag != "equal":
            rows += [("-", left[i][1]) for i in range(i1, i2)] + [("+", right[j][1]) for j in range(j1, j2)]
            continue
        for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
            if _same_operands(left[i][0], right[j][0], partner):
                rows.append((" ", left[i][1]))
            else:
                rows += [("-", left[i][1]), ("+", right[j][1])]
    return rows


def _partners(a: Graph, b: Graph) -> dict[Node, Node]:
    """Inputs pair by name, so that an inserted input does not shift all others."""
    by_name = {s.name: b.input_node(i) for i, s in enumerate(b.inputs)}
    return {a.input_node(i): by_name[s.name] for i, s in enumerate(a.inputs) if s.name in by_name}


def _same_operands(x: Node, y: Node, partner: dict[Node, Node]) -> bool:
    return all(_same_value(i, j, partner) for i, j in zip(x.inputs, y.inputs, strict=True))


def _same_value(i: Node, j: Node, partner: dict[Node, Node]) -> bool:
    if i.op.name == "result" and j.op.name == "result":
        return i.attrs == j.attrs and _same_value(i.inputs[0], j.inputs[0], partner)
    if i.op.name == "constant":
        return i.digest == j.digest
    return partner.get(i) is j


def _hunks(rows: list[tuple[str, str]], context: int) -> list[str]:
    keep = {k for i, (mark, _) in enumerate(rows) if mark != " " for k in range(i - context, i + context + 1)}
    lines: list[str] = []
    last = -1
    for i, (mark, text) in enumerate(rows):
        if i in keep:
            if i != last + 1:
                lines.append("  …")
            lines.append(f"{mark} {text}")
            last = i
    if last != len(rows) - 1:
        lines.append("  …")
    return lines


def _outputs(a: Graph, b: Graph) -> list[str]:
    def describe(g: Graph) -> list[str]:
        return [
            f"{name}: {node.type}" + ("" if d is None else f" -> %{g.inputs[d].name}")
            for name, node, d in zip(g.output_names, g.outputs, g.donations, strict=True)
        ]

    return _sequence("output", describe(a), describe(b))
