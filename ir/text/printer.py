"""Graph → text. The inverse of the parser, one line a node, canonical names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from ..attrs import Constant
from ..dtypes import DType
from ..graph import Graph
from ..node import Node
from ..types import TupleType

INLINE_LIMIT = 64  # elements of a constant printed in place when a side file is at hand
_PLAIN = re.compile(r"[A-Za-z_][\w.]*\Z")
_KEYWORDS = frozenset(
    {
        "graph",
        "return",
        "sizes",
        "in",
        "max",
        "none",
        "true",
        "false",
        "inf",
        "nan",
        "bf16",
        "f64",
        "f32",
        "f16",
        "i8",
        "i16",
        "i32",
        "i64",
        "u8",
        "u32",
        "u64",
        "bool",
        "_",
    }
)


def print_graph(
    graph: Graph,
    *,
    constants: MutableMapping[str, np.ndarray[Any, Any]] | None = None,
    places: bool = False,
    scopes: bool = True,
) -> str:
    """The text of a graph.

    Args:
        constants: where constants of more than 64 elements go, keyed by content; without it they print in full.
        places: append `@ "file":line in "scope"` to every line (parsed back, not part of equality).
        scopes: head each run of lines of one module scope with a comment.
    """
    return _Printer(constants, places, scopes).graph(graph, "") + "\n"


def statement_lines(graph: Graph) -> list[tuple[Node, str]]:
    """Every node that has a line of its own, with that line (without indent)."""
    printer = _Printer(None, False, False)
    names = printer.names(graph)
    return [(n, printer.statement(n, names, "")) for n in graph.nodes if printer.has_line(n, names)]


def name_text(name: str) -> str:
    """A name as the grammar wants it: bare, or quoted if it is not an identifier."""
    return name if _PLAIN.match(name) and name not in _KEYWORDS else json.dumps(name)


def scalar_text(value: Any, dtype: DType) -> str:
    """A number so that reading it back gives the same bits."""
    if dtype.is_bool:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    stored = np.asarray(value, dtype=dtype.numpy)
    if np.isnan(stored):
        bits = int.from_bytes(stored.tobytes(), "little")
        quiet = int.from_bytes(np.asarray(np.nan, dtype=dtype.numpy).tobytes(), "little")
        return "nan" if bits == quiet else f"0x{bits:x}"
    if np.isinf(stored):
        return "-inf" if stored < 0 else "inf"
    return str(np.float32(stored)) if dtype.bits == 32 else repr(float(stored))


class _Printer:
    def __init__(
        self, constants: MutableMapping[str, np.ndarray[Any, Any]] | None, places: bool, scopes: bool
    ) -> None:
        self.constants, self.places, self.scopes = constants, places, scopes

    def graph(self, g: Graph, indent: str) -> str:
        names = self.names(g)
        inner = indent + "  "
        head = f"graph {name_text(g.name)}" if g.name else "graph"
        if g.sizes:
            head += " sizes(" + ", ".join(f"{n} = {v}" for n, v in g.sizes) + ")"
        params = [self._param(g, i) for i in range(len(g.inputs))]
        flat = ", ".join(params)
        if len(indent) + len(head) + len(flat) < 100:
            lines = [f"{head} ({flat}) {{"]
        else:
            lines = [f"{head} (", *(f"{inner}  {p}," for p in params), f"{indent}) {{"]
        scope = ""
        for node in g.nodes:
            if not self.has_line(node, names):
                continue
            if self.scopes and node.place.scope != scope:
                scope = node.place.scope
                lines.append(f"{inner}# {' '.join(scope.split()) or '(top)'}")
            lines.append(self.statement(node, names, inner))
        lines.append(self._return(g, names, inner))
        return "\n".join([*lines, indent + "}"])

    def names(self, g: Graph) -> dict[Node, str]:
        """`%name` of every node; tuple nodes get theirs through their `result` nodes."""
        names: dict[Node, str] = {}
        projected: dict[tuple[Node, int], str] = {}  # one name however many places project the same result
        count = 0
        for node in g.nodes:
            if node.op.name == "input":
                names[node] = "%" + name_text(g.inputs[node.attrs.index].name)
            elif node.op.name == "result" and (node.inputs[0], node.attrs.index) in projected:
                names[node] = projected[node.inputs[0], node.attrs.index]
            elif self._is_literal(node):
                names[node] = f"{node.dtype.name}({scalar_text(node.attrs.value.array, node.dtype)})"
            elif isinstance(node.type, TupleType):
                names[node] = ""
            else:
                names[node] = f"%{count}"
                count += 1
                if node.op.name == "result":
                    projected[node.inputs[0], node.attrs.index] = names[node]
        return names

    def has_line(self, node: Node, names: dict[Node, str]) -> bool:
        return node in names and node.op.name not in ("input", "result") and not self._is_literal(node)

    @staticmethod
    def _is_literal(node: Node) -> bool:
        return node.op.name == "constant" and not node.attrs.value.array.shape

    def _param(self, g: Graph, i: int) -> str:
        spec = g.inputs[i]
        default = "" if spec.default is None else f" = {scalar_text(spec.default, spec.type.dtype)}"
        return f"%{name_text(spec.name)}: {spec.type} {spec.role}{default}"

    def statement(self, node: Node, names: dict[Node, str], indent: str) -> str:
        if isinstance(node.type, TupleType):
            projections = {
                n.attrs.index: names[n] for n in names if n.op.name == "result" and n.inputs[0] is node
            }
            targets = ", ".join(projections.get(i, "_") for i in range(len(node.type.items)))
        else:
            targets = names[node]
        line = f"{indent}{targets} = {node.op.name}({', '.join(names[i] for i in node.inputs)})"
        attrs = [
            f"{a.name}={self._attr(a.kind, v, indent)}"
            for a, v in zip(node.op.attrs, node.attrs, strict=True)
            if not (a.default is None and v is None) and (a.kind == "graph" or not _is_default(a.default, v))
        ]
        if attrs:
            line += " {" + ", ".join(attrs) + "}"
        line += f" : {node.type}"
        return line + (self._place(node) if self.places else "")

    @staticmethod
    def _place(node: Node) -> str:
        at, scope = node.place.location, node.place.scope
        where = f" @ {json.dumps(at.file)}:{at.line}" if at else ""
        return where + (f" in {json.dumps(scope)}" if scope else "")

    def _attr(self, kind: str, value: Any, indent: str) -> str:
        match kind:
            case "ints" | "dims":
                return "[" + ", ".join(map(str, value)) + "]"
            case "pads":
                return "[" + ", ".join("[" + ", ".join(map(str, p)) + "]" for p in value) + "]"
            case "bool":
                return "true" if value else "false"
            case "str":
                return json.dumps(value)
            case "float":
                from ..dtypes import f64

                return scalar_text(value, f64)
            case "const":
                return self._constant(value)
            case "graph":
                return self.graph(value, indent)
            case _:
                return str(value)

    def _constant(self, value: Constant) -> str:
        if self.constants is not None and value.array.size > INLINE_LIMIT:
            key = hashlib.blake2b(str(value.type).encode() + value.tobytes(), digest_size=8).hexdigest()
            self.constants[key] = value.array
            return f"{value.type}(@{key})"
        return f"{value.type}({', '.join(scalar_text(x, value.dtype) for x in value.array.ravel())})"

    @staticmethod
    def _return(g: Graph, names: dict[Node, str], indent: str) -> str:
        outs = []
        for name, node, donated in zip(g.output_names, g.outputs, g.donations, strict=True):
            arrow = "" if donated is None else f" -> %{name_text(g.inputs[donated].name)}"
            outs.append(f"{name_text(name)} = {names[node]}{arrow}")
        flat = ", ".join(outs)
        if len(flat) < 100:
            return f"{indent}return {flat}".rstrip()
        return f"{indent}return\n" + ",\n".join(f"{indent}  {o}" for o in outs)


def _is_default(default: Any, value: Any) -> bool:
    return type(default) is type(value) and bool(default == value)
