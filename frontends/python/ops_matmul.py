"""Contractions: the matmul family and einsum, all on the IR's `dot`."""

from __future__ import annotations

from typing import Any

from ...ir.build import Builder
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from .inplace import inplace
from .nodes import broadcast_shapes, cast, common_dtype, expand
from .registry import METHODS, both, function
from .tensor import Tensor
from .trace import apply, apply_mixed


def _same_dtype(x: Node, y: Node) -> None:
    if x.dtype is not y.dtype:
        raise DTypeError(f"expected m1 and m2 to have the same dtype, but got: {x.dtype.long_name} != "
                         f"{y.dtype.long_name}", hint="cast one of them: x.to(y.dtype)")


def matmul_node(b: Builder, x: Node, y: Node) -> Node:
    """PyTorch's matmul: vectors, matrices, broadcast batches of matrices."""
    _same_dtype(x, y)
    if not x.shape or not y.shape:
        raise ShapeError(f"both arguments to matmul need to be at least 1D, but they are {len(x.shape)}D and "
                         f"{len(y.shape)}D")
    inner = y.shape[-2] if len(y.shape) > 1 else y.shape[0]
    if x.shape[-1] != inner:
        what = "second to last" if len(y.shape) > 1 else "only"
        raise ShapeError(f"matmul: {list(x.shape)} and {list(y.shape)} cannot be multiplied: the last dimension of "
                         f"the first is {x.shape[-1]}, the {what} of the second is {inner}")
    lx, ly = len(x.shape), len(y.shape)
    if ly == 1:
        return b.dot(x, y, contract_a=(lx - 1,), contract_b=(0,))
    if lx == 1:
        if ly == 2:
            return b.dot(x, y, contract_a=(0,), contract_b=(0,))
        rows = b.reshape(x, shape=(1, x.shape[0]))
        out = matmul_node(b, rows, y)
        return b.reshape(out, shape=(*out.shape[:-2], out.shape[-1]))
    if ly == 2:
        return b.dot(x, y, contract_a=(lx - 1,), contract_b=(0,))
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = expand(b, x, (*batch, *x.shape[-2:])), expand(b, y, (*batch, *y.shape[-2:]))
    n = len(batch)
    return b.dot(x, y, contract_a=(n + 1,), contract_b=(n,),
                 batch_a=tuple(range(n)), batch_b=tuple(range(n)))


def linear_node(b: Builder, x: Node, weight: Node, bias: Node | None) -> Node:
    """x · weightᵀ + bias."""
    if x.shape[-1:] != weight.shape[-1:]:
        raise ShapeError(f"linear: input of shape {list(x.shape)} and weight of shape {list(weight.shape)}: the "
                         f"input's last dimension must be {weight.shape[-1] if weight.shape else 1} (in_features)")
    _same_dtype(x, weight)
    out = b.dot(x, weight, contract_a=(len(x.shape) - 1,), contract_b=(len(weight.shape) - 1,))
    if bias is None:
        return out
    return b.add(out, expand(b, cast(b, bias, out.dtype), out.shape))


@both()
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, with PyTorch's rules for vectors and batches."""
    return apply(matmul_node, (input, other))  # type: ignore[no-any-return]


def _operator(self: Tensor, other: Any) -> Any:
    if not isinstance(other, Tensor):
        from .ops_math import operand_of

        other = operand_of(other)
        if not isinstance(other, Tensor):
            return NotImplemented
    return apply(matmul_node, (self, other))


def _reflected(self: Tensor, other: Any) -> Any:
    from .ops_math import operand_of

    other = operand_of(other)
    return apply(matmul_node, (other, self)) if isinstance(other, Tensor) else NotImplemented


METHODS["__matmul__"], METHODS["__rmatmul__"] = _operator, _reflected


def _mm(b: Builder, x: Node, y: Node) -> Node:
    if len(x.shape) != 2 or len(y.shape) != 2:
        which, got = ("self", x) if len(x.shape) != 2 else ("mat2", y)
        raise ShapeError(f"{which} must be a matrix, got shape {list(got.shape)}")
    if x.shape[1] != y.shape[0]:
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({x.shape[0]}x{x.shape[1]} and "
                         f"{y.shape[0]}x{y.shape[1]})")
    return matmul_node(b, x, y)


@both()
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    return apply(_mm, (input, mat2))  # type: ignore[no-any-return]


def _bmm(b: Builder, x: Node, y: Node) -> Node:
    if len(x.shape) != 3 or len(y.shape) != 3:
        raise ShapeError("batch1 must be a 3D tensor" if len(x.shape) != 3 else "batch2 must be a 3D tensor")
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
        raise ShapeError(f"Expected size for first two dimensions of batch2 tensor to be: [{x.shape[0]}, {x.shape[2]}] "
                         f"but got: [{y.shape[0]}, {y.shape[1]}].")
    return matmul_node(b, x, y)


@both()
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices."""
    return apply(_bmm, (input, mat2))  # type: ignore[no-any-return]


@both()
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    if input.dim() != 2 or vec.dim() != 1:
        raise ShapeError(f"vector + matrix @ vector expected, got {input.dim()}, {vec.dim()}")
    return matmul(input, vec)


def _dot(b: Builder, x: Node, y: Node) -> Node:
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise ShapeError(f"1D tensors expected, but got {len(x.shape)}D and {len(y.shape)}D tensors")
    if x.shape != y.shape:
        raise ShapeError(f"inconsistent tensor size, expected tensor [{x.shape[0]}] and src [{y.shape[0]}] to have the "
                         f"same number of elements, but got {x.shape[0]} and {y.shape[0]} elements respectively")
    return matmul_node(b, x, y)


@both("dot", "vdot", "inner_1d")
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    return apply(_dot, (input, tensor))  # type: ignore[no-any-return]


def _outer(b: Builder, x: Node, y: Node) -> Node:
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise ShapeError(f"outer: Expected 1-D argument self, but got {len(x.shape)}-D and {len(y.shape)}-D")
    d = common_dtype((x, y))
    shape = (x.shape[0], y.shape[0])
    return b.mul(b.broadcast(cast(b, x, d), shape=shape, dims=(0,)),
                 b.broadcast(cast(b, y, d), shape=shape, dims=(1,)))


@both("outer", "ger")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors."""
    return apply(_outer, (input, vec2))  # type: ignore[no-any-return]


@both()
def inner(input: Tensor, other: Tensor) -> Tensor:
    """The product contracting the last dimensions of both."""
    if not input._shape or not other._shape:
        return input * other
    return tensordot(input, other, ([-1], [-1]))


def _plus(base: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    scaled = product if alpha == 1 else product * alpha
    if beta == 0:
        return scaled
    return (base if beta == 1 else base * beta) + scaled


@both()
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta·input + alpha·(mat1 @ mat2)`."""
    return _plus(input, mm(mat1, mat2), beta, alpha)


@both()
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta·input + alpha·(mat @ vec)`."""
    return _plus(input, mv(mat, vec), beta, alpha)


@both()
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta·input + alpha·outer(vec1, vec2)`."""
    return _plus(input, outer(vec1, vec2), beta, alpha)


@both()
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta·input + alpha·bmm(batch1, batch2)`."""
    return _plus(input, bmm(batch1, batch2), beta, alpha)


@both()
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta·input + alpha·` the sum of the batch of products."""
    return _plus(input, bmm(batch1, batch2).sum(0), beta, alpha)


for _f in (addmm, addmv, addr, baddbmm, addbmm):
    METHODS[f"{_f.__name__}_"] = inplace(_f)


def _tensordot(b: Builder, x: Node, y: Node, axes_x: tuple[int, ...], axes_y: tuple[int, ...]) -> Node:
    _same_dtype(x, y)
    for i, j in zip(axes_x, axes_y, strict=True):
        if x.shape[i] != y.shape[j]:
            raise ShapeError(f"contracted dimensions need to match, but first has size {x.shape[i]} in dim {i} and "
                             f"second has size {y.shape[j]} in dim {j}")
    if not axes_x:
        shape = (*x.shape, *y.shape)
        n = len(x.shape)
        return b.mul(b.broadcast(x, shape=shape, dims=tuple(range(n))),
                     b.broadcast(y, shape=shape, dims=tuple(range(n, len(shape)))))
    return b.dot(x, y, contract_a=axes_x, contract_b=axes_y)


@function()
def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Any = None) -> Tensor:
    """The product contracting `dims`: a number of adjoining dimensions, or a pair of lists."""
    if isinstance(dims, int):
        axes_a = tuple(range(a.dim() - dims, a.dim()))
        axes_b = tuple(range(dims))
    else:
        first, second = dims
        axes_a = tuple([int(d) % a.dim() for d in (first if isinstance(first, (list, tuple)) else [first])])
        axes_b = tuple([int(d) % b.dim() for d in (second if isinstance(second, (list, tuple)) else [second])])
    return apply(_tensordot, (a, b), (axes_a, axes_b))  # type: ignore[no-any-return]


# --- einsum -----------------------------------------------------------------------------------------------------------
def _parse(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """Subscripts of the operands and of the output, with `...` spelled out as numbered labels."""
    equation = equation.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"einsum(): the number of subscripts in the equation ({len(terms)}) does not match the number "
                         f"of operands ({len(ranks)})")
    widest = 0
    for term, rank in zip(terms, ranks, strict=True):
        letters = len(term.replace("...", ""))
        if "..." in term:
            widest = max(widest, rank - letters)
        if letters > rank or ("..." not in term and letters != rank):
            raise ValueError(f"einsum(): the number of subscripts in the equation ({letters}) does not match the "
                             f"number of dimensions ({rank}) for operand '{term}'")
    parsed = []
    for term, rank in zip(terms, ranks, strict=True):
        extra = rank - len(term.replace("...", ""))
        dots = [f".{widest - extra + i}" for i in range(extra)]
        head, _, tail = term.partition("...")
        parsed.append([*head, *dots, *tail] if "..." in term else list(term))
    if arrow:
        head, _, tail = right.partition("...")
        every = [f".{i}" for i in range(widest)]
        out = [*head, *every, *tail] if "..." in right else list(right)
    else:
        flat = [c for t in parsed for c in t]
        out = [f".{i}" for i in range(widest)] + sorted({c for c in flat if flat.count(c) == 1 and c[0] != "."})
    for c in out:
        if not any(c in t for t in parsed):
            raise ValueError(f"einsum(): output subscript {c} does not appear in the equation for any input operand")
    return parsed, out


def _diagonals(b: Builder, x: Node, labels: list[str]) -> tuple[Node, list[str]]:
    """Repeated labels of one operand taken on their diagonal."""
    labels = list(labels)
    while len(set(labels)) < len(labels):
        c = next(c for c in labels if labels.count(c) > 1)
        i = labels.index(c)
        j = labels.index(c, i + 1)
        order = [k for k in range(len(labels)) if k not in (i, j)] + [i, j]
        x = b.permute(x, dims=tuple(order))
        n = x.shape[-1]
        lead = x.shape[:-2]
        flat = b.reshape(x, shape=(*lead, n * n))
        zeros, ones = (0,) * (len(lead) + 1), (1,) * len(lead)
        x = b.slice(flat, start=zeros, size=(*lead, n), step=(*ones, n + 1))
        labels = [labels[k] for k in order[:-2]] + [c]
    return x, labels


def _contract(b: Builder, x: Node, lx: list[str], y: Node, ly: list[str], needed: set[str]) -> tuple[Node, list[str]]:
    """One pairwise contraction: sums what nobody needs, multiplies over shared labels."""
    x, lx = _sum_out(b, x, lx, needed | set(ly))
    y, ly = _sum_out(b, y, ly, needed | set(lx))
    shared = [c for c in lx if c in ly]
    for c in shared:
        dx, dy = x.shape[lx.index(c)], y.shape[ly.index(c)]
        if dx != dy:
            if dx == 1:
                x = expand(b, x, tuple([dy if k == c else d for k, d in zip(lx, x.shape, strict=True)]))
            elif dy == 1:
                y = expand(b, y, tuple([dx if k == c else d for k, d in zip(ly, y.shape, strict=True)]))
            else:
                raise ShapeError(f"einsum(): subscript {c} has size {dy} for the second operand which does not "
                                 f"broadcast with previously seen size {dx}")
    batch = [c for c in shared if c in needed]
    gone = [c for c in shared if c not in needed]
    if gone or not batch:
        made = b.dot(x, y, contract_a=tuple([lx.index(c) for c in gone]), contract_b=tuple([ly.index(c) for c in gone]),
                     batch_a=tuple([lx.index(c) for c in batch]), batch_b=tuple([ly.index(c) for c in batch]))
        return made, batch + [c for c in lx if c not in shared] + [c for c in ly if c not in shared]
    labels = batch + [c for c in lx if c not in shared] + [c for c in ly if c not in shared]
    sizes = dict(zip(lx, x.shape, strict=True)) | dict(zip(ly, y.shape, strict=True))
    shape = tuple([sizes[c] for c in labels])
    wide_x = b.broadcast(x, shape=shape, dims=tuple([labels.index(c) for c in lx])) if labels != lx else x
    return b.mul(wide_x, b.broadcast(y, shape=shape, dims=tuple([labels.index(c) for c in ly]))), labels


def _sum_out(b: Builder, x: Node, labels: list[str], needed: set[str]) -> tuple[Node, list[str]]:
    gone = tuple([i for i, c in enumerate(labels) if c not in needed])
    return (b.sum(x, axes=gone), [c for c in labels if c in needed]) if gone else (x, labels)


def _einsum(b: Builder, *args: Any) -> Node:
    *nodes, equation = args
    parsed, out = _parse(equation, [len(n.shape) for n in nodes])
    terms = [_diagonals(b, n, labels) for n, labels in zip(nodes, parsed, strict=True)]
    x, lx = terms[0]
    for i, (y, ly) in enumerate(terms[1:], 1):
        needed = set(out).union(*[set(labels) for _, labels in terms[i + 1:]])
        x, lx = _contract(b, x, lx, y, ly, needed)
    x, lx = _sum_out(b, x, lx, set(out))
    order = tuple([lx.index(c) for c in out])
    return x if order == tuple(range(len(order))) else b.permute(x, dims=order)


@function()
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by subscripts, e.g. `einsum("bij,bjk->bik", x, y)`; `...` and repeated labels included."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    return apply(_einsum, operands, (equation,))  # type: ignore[no-any-return]


@function()
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, left to right."""
    result = matrices[0]
    for m in matrices[1:]:
        result = mm(result, m)
    return result


@both()
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    rank = max(input.dim(), other.dim())
    x = input.reshape((1,) * (rank - input.dim()) + tuple(input._shape))
    y = other.reshape((1,) * (rank - other.dim()) + tuple(other._shape))
    wide_x = x.reshape(tuple([e for d in x._shape for e in (d, 1)]))
    wide_y = y.reshape(tuple([e for d in y._shape for e in (1, d)]))
    return (wide_x * wide_y).reshape(tuple([a * c for a, c in zip(x._shape, y._shape, strict=True)]))  # type: ignore[no-any-return]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`: what `nn.functional.linear` is."""
    return apply_mixed(linear_node, (input, weight, bias))  # type: ignore[no-any-return]
