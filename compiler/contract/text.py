"""Small tools to write kernel sources: templates with blocks, element access by dtype, inlined epilogues."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from textwrap import dedent, indent

from ...ir.dtypes import DType

_BLOCK = re.compile(r"^([ ]*)\$(\w+)[ ]*$", re.MULTILINE)
_INLINE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def fill(template: str, **values: object) -> str:
    """`template`, dedented, with `$name` and `${name}` replaced.

    A `$name` alone on its line takes a block of any number of lines at its own indentation (none: the line
    goes).
    """

    def block(match: re.Match[str]) -> str:
        text = dedent(str(values[match[2]])).strip("\n")
        return indent(text, match[1]) if text else "\0"

    text = _BLOCK.sub(block, dedent(template).strip("\n") + "\n").replace("\0\n", "")
    return _INLINE.sub(lambda match: str(values[match[1] or match[2]]), text)


def extent_loads(names: tuple[str, ...]) -> str:
    """Lines that read every extent into a variable of its name."""
    return "\n".join(f"{name} = extents[{i}]" for i, name in enumerate(names))


def storage(dtype: DType) -> str:
    """The name under which pointers to the dtype's storage go: sixteen-bit floats are stored as `u16`."""
    return "u16" if dtype.name in ("f16", "bf16") else dtype.name


def load(dtype: DType, pointer: str, index: str) -> str:
    """Expression: one element in its compute dtype."""
    return f"{dtype}_to_f32({pointer}[{index}])" if storage(dtype) == "u16" else f"{pointer}[{index}]"


def store(dtype: DType, pointer: str, index: str, value: str) -> str:
    """Statement: write one element given in its compute dtype."""
    return (
        f"{pointer}[{index}] = f32_to_{dtype}({value})" if storage(dtype) == "u16" else f"{pointer}[{index}] = {value}"
    )


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Fused work on finished tiles of a contraction's result, while they are in the cache.

    Attributes:
        source: text of `def epilogue(buffers, extents, acc, acc_stride, b, m0, m1, n0, n1)`: for every m in
            `[m0, m1)` and n in `[n0, n1)` it reads the result (in the compute dtype) at
            `acc[(m - m0) * acc_stride + n - n0]` and writes its outputs. It sees the kernel's own `buffers`
            and `extents`: its operands follow the contraction's two, its extents follow the contraction's
            own. No `return`, no status. It must not write through `acc`.
        n_buffers: operands besides the contraction's two inputs, outputs included.
        extents: names of the extra extents.
    """

    source: str
    n_buffers: int
    extents: tuple[str, ...] = ()


class _Rename(ast.NodeTransformer):
    """Prefixes every local name of a function, so that its body can be pasted into another."""

    def __init__(self, local_names: frozenset[str], prefix: str) -> None:
        self.local_names, self.prefix = local_names, prefix

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.prefix + node.id, node.ctx) if node.id in self.local_names else node


def inline_call(source: str, arguments: dict[str, str], prefix: str = "e_") -> str:
    """The body of the one function in `source`, as statements to paste where it would be called.

    Args:
        source: a module text that holds one function definition.
        arguments: parameter name → expression for every parameter.
        prefix: put before all names local to the function.

    Raises:
        ValueError: the text is not one function with exactly these parameters, or it returns.
    """
    module = ast.parse(dedent(source))
    function = module.body[0] if len(module.body) == 1 else None
    if not isinstance(function, ast.FunctionDef) or [a.arg for a in function.args.args] != list(arguments):
        raise ValueError(f"expected one function of parameters {', '.join(arguments)}")
    nodes = list(ast.walk(function))
    if any(isinstance(node, ast.Return) for node in nodes):
        raise ValueError("an inlined function must not return")
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    renamed = _Rename(frozenset(stored | set(arguments)), prefix)
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):  # the docstring
        body = body[1:]
    lines = [f"{prefix}{name} = {value}" for name, value in arguments.items()]
    return "\n".join(lines + [ast.unparse(renamed.visit(statement)) for statement in body])


def paste_epilogue(epilogue: Epilogue, *, acc: str, stride: str, b: str, m: tuple[str, str], n: tuple[str, str]) -> str:
    """The epilogue's statements for one tile, with the caller's expressions as arguments."""
    return inline_call(
        epilogue.source,
        {
            "buffers": "buffers",
            "extents": "extents",
            "acc": acc,
            "acc_stride": stride,
            "b": b,
            "m0": m[0],
            "m1": m[1],
            "n0": n[0],
            "n1": n[1],
        },
    )
