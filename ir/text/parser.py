"""Text → graph. Every mistake is an `IRSyntaxError` with line and caret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from lark import Lark, Token, Tree
from lark.exceptions import LarkError, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from ..attrs import Constant
from ..dims import Dim, dmax, floordiv, mod, sym
from ..dtypes import DType, dtype
from ..errors import AttributeValueError, IRSyntaxError, Location, TracemillError
from ..graph import ROLES, Graph, InputSpec, input_node
from ..node import NOWHERE, Node, Place
from ..opdef import table
from ..types import TensorType, TupleType

MAX_INLINE = 1 << 24  # elements of an inline constant: a typo in a shape must not take the machine's memory


def parse_graph(
    text: str, constants: Mapping[str, np.ndarray[Any, Any]] | None = None, file: str = "<ir>"
) -> Graph:
    """The graph a text describes, verified operator by operator.

    Args:
        constants: arrays of the text's `@reference`s (the side file that the printer filled).
        file: the name to show in errors.

    Raises:
        IRSyntaxError: with line, column and caret, for anything that is not a valid graph.
    """
    try:
        tree = _lark().parse(text)
    except UnexpectedInput as error:
        raise _syntax_error(error, text, file) from None
    except (LarkError, RecursionError) as error:
        raise IRSyntaxError(str(error).splitlines()[0], source=text, line=1, column=1, file=file) from None
    reader = _Reader(text, constants or {}, file)
    try:
        return reader.graph(_tree(tree.children[0]), inner=False)
    except RecursionError:
        raise IRSyntaxError("nested too deeply", source=text, line=1, column=1, file=file) from None


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text()
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _syntax_error(error: UnexpectedInput, text: str, file: str) -> IRSyntaxError:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    ):
        lines = text.splitlines() or [""]
        return IRSyntaxError(
            "the text ends in the middle of a graph",
            source=text,
            line=len(lines),
            column=len(lines[-1]) + 1,
            file=file,
        )
    if isinstance(error, UnexpectedToken):
        wanted = ", ".join(sorted(_token_name(t) for t in error.accepts or error.expected)[:8])
        message = f"unexpected {str(error.token)!r}; expected one of: {wanted}"
    else:
        message = f"unexpected character {text[error.pos_in_stream or 0]!r}"
    return IRSyntaxError(message, source=text, line=max(line, 1), column=max(column, 1), file=file)


def _tree(child: Any) -> Tree[Any]:
    """The first rule's only child (the grammar gives no other shape)."""
    assert isinstance(child, Tree)
    return child


def _token_name(terminal: str) -> str:
    known = {t.name: t.pattern.value for t in _lark().terminals if t.pattern.type == "str"}
    return repr(known[terminal]) if terminal in known else terminal.lower()


class _Reader:
    """Walks the parse tree of one text."""

    def __init__(self, text: str, constants: Mapping[str, np.ndarray[Any, Any]], file: str) -> None:
        self.text, self.constants, self.file = text, constants, file

    def fail(self, message: str, at: Any) -> IRSyntaxError:
        """An error at a token or tree."""
        where = at if isinstance(at, Token) else at.meta
        line, column = getattr(where, "line", None) or 1, getattr(where, "column", None) or 1
        return IRSyntaxError(message, source=self.text, line=line, column=column, file=self.file)

    # -- graphs -------------------------------------------------------------------------------------------------

    def graph(self, tree: Tree[Any], inner: bool) -> Graph:
        name = self.name(tree.children[0]) if tree.children[0] is not None else ""
        sizes = self.sizes(tree.children[1])
        params = [t for t in tree.children[2:-1] if isinstance(t, Tree) and t.data == "param"]
        specs = [self.param(t) for t in params]
        values: dict[str, Node] = {}
        for i, (spec, t) in enumerate(zip(specs, params, strict=True)):
            if spec.name in values:
                raise self.fail(f"%{spec.name} is defined twice", t)
            values[spec.name] = input_node(i, spec.type)
        for t in tree.children[2:-1]:
            if isinstance(t, Tree) and t.data == "stmt":
                self.statement(t, values)
        last = tree.children[-1]
        assert isinstance(last, Tree)
        graph = self.outputs(last, name, specs, values, sizes)
        if not inner:
            self.verify(graph, tree)
        return graph

    def verify(self, graph: Graph, tree: Tree[Token]) -> None:
        from ..verify import verify

        try:
            verify(graph)
        except TracemillError as error:
            raise self.fail(error.message, tree.children[-1]) from None

    def sizes(self, tree: Any) -> tuple[tuple[str, int], ...]:
        if tree is None:
            return ()
        pairs = [(str(t.children[0]), self.integer(t.children[1])) for t in tree.children if t is not None]
        if len(dict(pairs)) != len(pairs):
            raise self.fail("a size is named twice", tree)
        return tuple(pairs)

    def param(self, tree: Tree[Any]) -> InputSpec:
        value, type_tree, role, default = tree.children
        spec_type = self.type(type_tree)
        if role is not None and str(role) not in ROLES:
            raise self.fail(f"unknown role {role}; roles are {', '.join(ROLES)}", role)
        number = None
        if default is not None:
            if spec_type.shape:
                raise self.fail("only scalars have a default", default)
            array = self.scalar(default, spec_type.dtype)
            number = array.astype(np.float64).item() if spec_type.dtype.is_float else array.item()
        return InputSpec(
            self.value_name(value), spec_type, str(role) if role is not None else "batch", number
        )

    def outputs(
        self,
        tree: Tree[Any],
        name: str,
        specs: list[InputSpec],
        values: dict[str, Node],
        sizes: tuple[tuple[str, int], ...],
    ) -> Graph:
        nodes, names, donations = [], [], []
        index = {s.name: i for i, s in enumerate(specs)}
        for t in tree.children:
            if t is None:
                continue
            assert isinstance(t, Tree)
            label, operand, donated = t.children
            node = self.operand(operand, values)
            if isinstance(node.type, TupleType):
                raise self.fail("an output is a single value", t)
            nodes.append(node)
            names.append(self.name(label))
            if donated is not None and self.value_name(donated) not in index:
                raise self.fail(f"{donated} is not an input", donated)
            donations.append(None if donated is None else index[self.value_name(donated)])
        graph = Graph(name, tuple(specs), tuple(nodes), tuple(names), tuple(donations), sizes)
        return graph

    # -- statements ---------------------------------------------------------------------------------------------

    def statement(self, tree: Tree[Token], values: dict[str, Node]) -> None:
        targets = [t for t in tree.children if isinstance(t, Tree) and t.data in ("target", "unused")]
        op_token = tree.children[len(targets)]
        operands = [t for t in tree.children if isinstance(t, Tree) and t.data == "operand"]
        attrs, types, place = tree.children[-3:]
        assert isinstance(op_token, Token)
        if str(op_token) not in table() or str(op_token) in ("input", "result"):
            raise self.fail(f"unknown operator {op_token}{_suggest(str(op_token))}", op_token)
        inputs = [self.operand(t, values) for t in operands]
        try:
            node = Node.make(str(op_token), inputs, self.attrs(attrs), self.place(place))
        except IRSyntaxError:
            raise
        except TracemillError as error:
            raise self.fail(error.message, op_token) from None
        except (ArithmeticError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise self.fail(f"{op_token}: attributes or operands do not fit ({error})", op_token) from None
        self.check_types(node, types)
        self.define(node, targets, values)

    def check_types(self, node: Node, tree: Any) -> None:
        if tree is None:
            return
        stated = tuple(self.type(t) for t in tree.children if t is not None)
        if stated != node.result_types:
            inferred = ", ".join(map(str, node.result_types))
            raise self.fail(
                f"{node.op.name} gives {inferred}, the text says {', '.join(map(str, stated))}", tree
            )

    def define(self, node: Node, targets: list[Tree[Token]], values: dict[str, Node]) -> None:
        if isinstance(node.type, TupleType):
            if len(targets) != len(node.type.items):
                raise self.fail(f"{node.op.name} has {len(node.type.items)} results", targets[0])
            results = [Node.make("result", (node,), {"index": i}, node.place) for i in range(len(targets))]
        elif len(targets) != 1:
            raise self.fail(f"{node.op.name} has one result", targets[1])
        else:
            results = [node]
        for t, result in zip(targets, results, strict=True):
            if t.data == "unused":
                continue
            name = self.value_name(t.children[0])
            if name in values:
                raise self.fail(f"%{name} is defined twice", t)
            values[name] = result

    def operand(self, tree: Any, values: dict[str, Node]) -> Node:
        child = tree.children[0]
        if isinstance(child, Token):
            name = self.value_name(child)
            if name not in values:
                raise self.fail(f"{child} is not defined above this line", child)
            return values[name]
        element = self.dtype(child.children[0])
        array = self.scalar(child.children[1], element)
        return Node.make("constant", (), {"value": Constant(array)})

    def place(self, tree: Any) -> Place:
        if tree is None:
            return NOWHERE
        if tree.data == "scope":
            return Place(None, self.string(tree.children[0]))
        file, line, scope = tree.children
        return Place(
            Location(self.string(file), self.integer(line)), self.string(scope) if scope is not None else ""
        )

    # -- attributes ---------------------------------------------------------------------------------------------

    def attrs(self, tree: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for t in tree.children if tree is not None else ():
            if t is None:
                continue
            name = str(t.children[0])
            if name in found:
                raise self.fail(f"attribute {name} is given twice", t)
            found[name] = self.attr_value(t.children[1])
        return found

    def attr_value(self, tree: Tree[Any]) -> Any:
        child: Any = tree.children[0]
        match child.data:
            case "scalar_float":
                return float(child.children[0])
            case "boolean":
                return child.children[0].data == "true" if child.children else False
            case "true" | "false":
                return child.data == "true"
            case "string":
                return self.string(child)
            case "none":
                return None
            case "dtype":
                return self.dtype(child.children[0])
            case "type":
                return self.type(child)
            case "const":
                return self.constant(child)
            case "const_reference":
                return self.reference(child)
            case "list":
                return tuple(self.attr_value(t) for t in child.children if t is not None)
            case "graph":
                return self.graph(child, inner=True)
            case _:
                return self.dim(child)

    def constant(self, tree: Tree[Any]) -> Constant:
        const_type = self.type(tree.children[0])
        numbers = [t for t in tree.children[1:] if t is not None]
        shape = const_type.shape
        if not all(isinstance(d, int) for d in shape) or const_type.size != len(numbers):
            raise self.fail(
                f"a constant {const_type} needs {const_type.size} numbers, {len(numbers)} given", tree
            )
        flat = [self.scalar(t, const_type.dtype) for t in numbers]
        array = np.stack(flat) if flat else np.empty(0, const_type.dtype.numpy)
        return Constant(array.reshape(tuple(int(d) for d in shape if isinstance(d, int))))

    def reference(self, tree: Tree[Any]) -> Constant:
        const_type, key = self.type(tree.children[0]), str(tree.children[1])[1:]
        if key not in self.constants:
            raise self.fail(f"constant @{key} is not in the side file", tree.children[1])
        constant = Constant(self.constants[key])
        if constant.type != const_type:
            raise self.fail(
                f"constant @{key} is {constant.type}, the text says {const_type}", tree.children[1]
            )
        return constant

    def scalar(self, tree: Tree[Any], element: DType) -> np.ndarray[Any, Any]:
        """A rank-0 array of a number's text, exact in the dtype."""
        if tree.data in ("true", "false"):
            if not element.is_bool:
                raise self.fail(f"{tree.data} is not a number of {element}", tree)
            return np.asarray(tree.data == "true")
        text = "".join(map(str, tree.children))
        if tree.data == "negative":
            text = "-" + text.lstrip("-")
        try:
            return _number(text, element)
        except (ValueError, OverflowError):
            raise self.fail(f"{text} is not a number of {element}", tree) from None

    # -- leaves -------------------------------------------------------------------------------------------------

    def type(self, tree: Any) -> TensorType:
        dims = tuple(self.dim(t) for t in tree.children[1:] if t is not None)
        if any(isinstance(d, int) and d < 0 for d in dims):
            raise self.fail("an extent is negative", tree)
        return TensorType(self.dtype(tree.children[0]), dims)

    def dtype(self, token: Token) -> DType:
        return dtype(str(token))

    def dim(self, tree: Any) -> Dim:
        parts = tree.children
        try:
            match tree.data:
                case "number":
                    return self.natural(parts[0])
                case "size_name":
                    return sym(str(parts[0]))
                case "neg":
                    return -self.dim(parts[0])
                case "add":
                    return self.dim(parts[0]) + self.dim(parts[1])
                case "sub":
                    return self.dim(parts[0]) - self.dim(parts[1])
                case "mul":
                    return self.dim(parts[0]) * self.dim(parts[1])
                case "floordiv":
                    return floordiv(self.dim(parts[0]), self.dim(parts[1]))
                case "mod":
                    return mod(self.dim(parts[0]), self.dim(parts[1]))
                case "max":
                    return dmax(self.dim(parts[0]), self.dim(parts[1]))
        except ZeroDivisionError:
            raise self.fail("division by zero", tree) from None
        raise self.fail("expected an extent", tree)

    def integer(self, tree: Any) -> int:
        value = self.natural(tree.children[0])
        return -value if tree.data == "negative" else value

    def natural(self, token: Token) -> int:
        if len(token) > 18:
            raise self.fail("the number does not fit 64 bits", token)
        return int(token)

    def name(self, tree: Any) -> str:
        token = tree.children[0]
        return self.unquote(token) if token.type == "STRING" else str(token)

    def string(self, tree: Any) -> str:
        return self.unquote(tree.children[0])

    def value_name(self, token: Any) -> str:
        text = str(token)[1:]
        return self.unquote(token, text) if text.startswith('"') else text

    def unquote(self, token: Token, text: str | None = None) -> str:
        try:
            value = json.loads(text if text is not None else str(token))
        except json.JSONDecodeError:
            raise self.fail("a malformed string", token) from None
        return str(value)


def _number(text: str, element: DType) -> np.ndarray[Any, Any]:
    if text.startswith("0x"):
        if not element.is_float:
            raise ValueError
        return np.frombuffer(int(text, 16).to_bytes(element.itemsize, "little"), element.numpy).reshape(())
    if element.is_float:
        with np.errstate(over="ignore"):
            exact = np.float32(text) if element.bits == 32 else np.float64(text)
            return np.asarray(exact, dtype=element.numpy)
    if element.is_bool or len(text) > 21:
        raise ValueError
    value = int(text)
    if not element.min <= value <= element.max:
        raise OverflowError
    return np.asarray(value, dtype=element.numpy)


def _suggest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, table(), n=1)
    return f"; did you mean {close[0]}?" if close else ""


__all__ = ["AttributeValueError", "parse_graph"]
