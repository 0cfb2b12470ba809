"""Lowering of `dot`, with the views that lead to its operands and the elementwise work that follows it.

Operands are read through permutes, reshapes, broadcasts and slices as strides; an operand that strides cannot express
is copied first, by a launch of its own. What follows becomes the epilogue of the matrix kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node, postorder
from ...ir.types import TensorType
from ...runtime import blas
from ..contract.blas import BlasDot
from ..contract.gemm import BatchAxis, DotGeneral, Strides
from .collapse import collapse
from .emit_map import emit_map
from .epilogue import Tile, write_epilogue
from .errors import CannotLower
from .index_maps import Vector, axis, coefficients, flatten
from .kernel_ir import Apply, Axis, Instruction, Kernel, Load, Operand, Reduce, Store, dump
from .locate import forward
from .lowered import Launch, Lowered, Slot
from .overwrite import overwritable
from .row_split import rows_of
from .sizes import GroupSizes
from .source import module
from .space import Space, extents_of
from .values import Values

_RESULT = "product"


def lower_dot(body: Graph, inputs: tuple[int, ...], core: Node) -> Lowered:
    """A body with one dot as launches."""
    failure: CannotLower | None = None
    for copies in ((False, False), (False, True), (True, False), (True, True)):
        try:
            return _Dot(body, inputs, core).lower(copies)
        except CannotLower as error:
            failure = error
    raise failure or CannotLower("dot")


@dataclass(frozen=True)
class _Side:
    """One operand as the kernel reads it: buffer, address, bytes before its first element."""

    slot: Slot
    dtype_size: int
    address: Dim

    def stride(self, a: Axis | None) -> Dim:
        """Elements from one coordinate along an axis to the next."""
        return 0 if a is None else coefficients(self.address).get((a.name,), 0)


class _Dot:
    def __init__(self, body: Graph, inputs: tuple[int, ...], core: Node) -> None:
        self.body, self.inputs, self.core = body, inputs, core
        self.nodes = postorder(body.outputs)
        self.sizes = GroupSizes(self.nodes, body.outputs)
        a, b = core.inputs
        at = core.attrs
        shape_a, shape_b = self.sizes.shape(a), self.sizes.shape(b)
        named: dict[str, list[Axis]] = {"b": [], "p": [], "q": [], "k": []}

        def new(letter: str, extent: Dim) -> Dim:
            axes = [Axis(f"{letter}{len(named[letter]) + i}", e) for i, e in enumerate(extents_of((extent,)))]
            named[letter] += axes
            return flatten([axis(x.name) for x in axes], [x.extent for x in axes])

        index_a: list[Dim] = [0] * len(shape_a)
        index_b: list[Dim] = [0] * len(shape_b)
        for i, j in zip(at.batch_a, at.batch_b, strict=True):
            index_a[i] = index_b[j] = new("b", shape_a[i])
        for i, j in zip(at.contract_a, at.contract_b, strict=True):
            index_a[i] = index_b[j] = new("k", shape_a[i])
        free_a = [i for i in range(len(shape_a)) if i not in at.batch_a + at.contract_a]
        free_b = [j for j in range(len(shape_b)) if j not in at.batch_b + at.contract_b]
        for i in free_a:
            index_a[i] = new("p", shape_a[i])
        for j in free_b:
            index_b[j] = new("q", shape_b[j])
        self.vectors: tuple[Vector, Vector] = tuple(index_a), tuple(index_b)
        self.out: Vector = (*(index_a[i] for i in at.batch_a), *(index_a[i] for i in free_a),
                            *(index_b[j] for j in free_b))
        self.outer, self.depth = tuple(named["b"]), tuple(named["k"])
        self.kept = (*named["b"], *named["p"], *named["q"])
        self.space = Space(self.kept, self.depth, (self.kept,))
        self.rows, self.columns = tuple(named["p"]), tuple(named["q"])
        self.operands: dict[Node, Operand] = {}
        self.slots: dict[str, Slot] = {}
        for n in self.nodes:
            if n.op.name == "input":
                name = f"x{n.attrs.index}"
                self.operands[n] = Operand(name, n.dtype, self.sizes.shape(n))
                self.slots[name] = Slot("input", inputs[n.attrs.index])

    # -- operands -------------------------------------------------------------------------------------------------

    def _view(self, side: int) -> tuple[Operand, Dim]:
        """An operand as a buffer and an address in it."""
        values = Values(self.sizes, self.space, self.operands)
        values.value(self.core.inputs[side], self.vectors[side])
        match values.body:
            case [Load(operand=name, address=address, guard="")]:
                return next(o for o in self.operands.values() if o.name == name), address
        raise CannotLower("an operand of a dot is more than a view")

    def _copied(self, side: int, number: int) -> tuple[Launch, Operand]:
        """A launch that writes an operand row-major, contraction innermost for the left and in the middle for the
        right one."""
        node = self.core.inputs[side]
        order = ((*self.outer, *self.rows, *self.depth), (*self.outer, *self.depth, *self.columns))[side]
        target = Operand(f"t{side}", node.dtype, tuple(a.extent for a in order), output=True)
        values = Values(self.sizes, replace(self.space, kept=order, reduced=()), self.operands)
        value = values.value(node, self.vectors[side])
        values.body.append(Store(target.name, flatten([axis(a.name) for a in order], target.extents), value))
        read = {i.operand for i in values.body if isinstance(i, Load)}
        operands = (*(o for o in self.operands.values() if o.name in read), target)
        kernel = collapse(Kernel("map", operands, order, (), tuple(values.body), ("map: operand of dot",)))
        self.slots[target.name] = Slot("temporary", number)
        emitted = emit_map(kernel)
        real = self.sizes.sizes.real
        launch = Launch(emitted.source, tuple(self.slots[o.name] for o in emitted.operands),
                        tuple(map(real, emitted.extents)), real(emitted.range), grain=emitted.grain,
                        work=real(product(list(target.extents))) * 2, faults=tuple(values.sites), ir=dump(kernel))
        return launch, target

    # -- the kernel -----------------------------------------------------------------------------------------------

    def lower(self, copies: tuple[bool, bool]) -> Lowered:
        """Launches, with the operands that `copies` says copied first."""
        launches: list[Launch] = []
        temporaries: list[TensorType] = []
        sides: list[tuple[Operand, Dim]] = []
        for side, copy in enumerate(copies):
            if copy:
                launch, target = self._copied(side, len(temporaries))
                launches.append(launch)
                temporaries.append(TensorType(target.dtype, tuple(map(self.sizes.sizes.real, target.extents))))
                order = ((*self.outer, *self.rows, *self.depth), (*self.outer, *self.depth, *self.columns))[side]
                sides.append((target, flatten([axis(a.name) for a in order], target.extents)))
            else:
                sides.append(self._view(side))
        launch, pairs = self._product(sides)
        return Lowered((*launches, launch), tuple(temporaries), pairs)

    def _instructions(self, sides: list[tuple[Operand, Dim]]) -> tuple[Kernel, Values]:
        """The whole as kernel IR: products, their sum, and what follows it."""
        dtype = self.core.dtype
        (a, at_a), (b, at_b) = sides
        head: list[Instruction] = [
            Load("left", a.name, at_a, a.dtype), Load("right", b.name, at_b, b.dtype),
            Apply("term", "left * right", ("left", "right"), dtype.compute, 1, "dot"),
            Reduce(_RESULT, "sum", "term", dtype.compute)]
        values = Values(self.sizes, replace(self.space, reduced=()), self.operands)
        values.assume(self.core, self.out, _RESULT)
        located = forward(self.nodes, {self.core: self.out}, self.sizes, self.space.extents)
        outputs = self.body.outputs
        targets = [Operand(f"y{k}", o.dtype, self.sizes.shape(o), output=True) for k, o in enumerate(outputs)]
        self.slots |= {t.name: Slot("result", k) for k, t in enumerate(targets)}
        places = [located.get(o) or self.space.locate(t.extents) for o, t in zip(outputs, targets, strict=True)]
        values.store_all(outputs, places, targets)
        read = [i.operand for i in values.body if isinstance(i, Load)]
        extra = [o for o in self.operands.values() if o.name in read]
        names = [n.op.name for n in self.nodes if n.op.name not in ("input", "constant", "broadcast", "reshape")]
        kernel = Kernel("dot", (replace(a, output=False), replace(b, output=False), *extra, *targets), self.kept,
                        self.depth, (*head, *values.body), (f"dot: {' '.join(names)}",))
        return collapse(kernel), values

    def _product(self, sides: list[tuple[Operand, Dim]]) -> tuple[Launch, tuple[tuple[int, int], ...]]:
        kernel, values = self._instructions(sides)
        real = self.sizes.sizes.real
        left, right = kernel.body[0], kernel.body[1]
        assert isinstance(left, Load) and isinstance(right, Load)
        a = self._side(left, kernel)
        b = self._side(right, kernel)
        if len(kernel.reduced) > 1:
            raise CannotLower("the contracted axes of a dot have no common stride")
        rows = [x for x in kernel.kept if a.stride(x) != 0 and b.stride(x) == 0]
        columns = [x for x in kernel.kept if b.stride(x) != 0 and a.stride(x) == 0]
        row, column = rows[-1] if rows else None, columns[-1] if columns else None
        if row is not None and column is None and self.core.dtype.is_float:  # vectors run along columns: make them so
            (left, right), (a, b), (row, column) = (right, left), (b, a), (None, row)
        merged = _merged(row, rows, a) if row is not None and self.core.dtype.is_float else (row,) if row else ()
        row = merged[-1] if merged else None
        size_row = product([x.extent for x in merged])
        batch = tuple(x for x in kernel.kept if x not in (*merged, column))
        depth = kernel.reduced[0] if kernel.reduced else None
        tail = kernel.body[4:]
        plain = self._plain(tail)
        # Rows of several axes have a common stride in the left operand, not in the result: that is the epilogue's work.
        store = None if plain is None or len(merged) > 1 else _Side(a.slot, 1, plain.address)
        c = None if store is None else Strides(store.stride(row), store.stride(column), tuple(map(store.stride, batch)))
        lengths = (size_row, column.extent if column else 1, depth.extent if depth else 1)
        strides = (a.stride(row), a.stride(depth)), (b.stride(depth), b.stride(column))
        spec = self._generator(lengths, *strides)
        own: tuple[Dim, ...] = ()
        if self.core.dtype.is_float:
            tile = Tile(batch, merged, (column,) if column else (), _RESULT)
            epilogue, own = write_epilogue(kernel, tail, kernel.operands[2:], tile, self.core.dtype.compute)
            source = spec.kernel(epilogue)
            source = replace(source, source=module(source.source, (f"product of {self.core.dtype}",)))
            c = c if c is not None and spec.can_write(c) else None
        elif c is None:
            raise CannotLower("integer dots have no epilogue")
        else:
            source = spec.kernel()
            source = replace(source, source=module(source.source, kernel.comments))
        axes = [BatchAxis(x.extent, a.stride(x), b.stride(x)) for x in batch]
        extents = spec.extents(lengths, *strides, axes, c)
        rows_apart = None
        if self.core.dtype.is_float and len(merged) == 1 and not batch and not isinstance(spec, BlasDot):
            by_rows = spec.extents(lengths, *strides, c=c, by_rows=True)
            rows_apart = rows_of(kernel, merged[0], kernel.operands, real, size_row, tuple(map(real, [*by_rows, *own])))
        size_m, size_n, size_k = map(real, lengths)
        count = real(product([x.extent for x in batch]))
        outputs = [self.slots[o.name] for o in kernel.operands[2:]]
        pairs = tuple((self.slots[r].index, self.slots[x].index) for r, x in overwritable(kernel)
                      if self.slots[x].role == "input" and x not in (left.operand, right.operand))
        launch = Launch(
            source, (a.slot, b.slot, *outputs),
            tuple(map(real, [*extents, *own])), spec.parallel_range(count, size_m, size_n),
            sum(o.output for o in kernel.operands), scratch=spec.scratch_bytes(size_m, size_n),
            work=count * size_m * size_n * size_k * 2, faults=tuple(values.sites),
            rows=rows_apart, ir=dump(kernel))
        return launch, pairs

    def _generator(self, sizes: tuple[Dim, Dim, Dim], a: tuple[Dim, Dim], b: tuple[Dim, Dim]) -> DotGeneral:
        """What makes the kernel for a product of these sizes and strides."""
        if blas.chosen():
            library = BlasDot(self.core.dtype)
            if library.suits(sizes, a, b):
                return library
        return DotGeneral(self.core.dtype).shaped(*sizes[:2])

    def _side(self, load: Load, kernel: Kernel) -> _Side:
        """An operand's strides. Raises CannotLower if its address is not linear."""
        parts = coefficients(load.address)
        offset = parts.pop((), 0)
        axes = {a.name for a in kernel.kept + kernel.reduced}
        if any(len(m) != 1 or m[0] not in axes for m in parts):
            raise CannotLower("an operand of a dot is not a strided view")
        slot = self.slots[load.operand]
        if offset != 0:
            slot = replace(slot, offset=self.sizes.sizes.real(offset) * load.dtype.itemsize)
        return _Side(slot, load.dtype.itemsize, load.address)

    def _plain(self, tail: tuple[Instruction, ...]) -> Store | None:
        """The store of the bare product, if that is all that follows."""
        stores = [i for i in tail if isinstance(i, Store)]
        rest = [i for i in tail if not isinstance(i, Store)]
        rounds = all(isinstance(i, Apply) and i.label == "round" for i in rest)  # integer kernels round by themselves
        return stores[0] if len(stores) == 1 and rounds and len(rest) < 2 else None


def _merged(row: Axis, rows: list[Axis], side: _Side) -> tuple[Axis, ...]:
    """The axes of rows that are one axis in the left operand, outermost first: `row` and all that continue it. They may
    lie in the results in another order."""
    found = [row]
    while True:
        others = [x for x in rows if x not in found]
        inner = next((x for x in others if side.stride(found[-1]) == side.stride(x) * x.extent), None)
        outer = next((x for x in others if side.stride(x) == side.stride(found[0]) * found[0].extent), None)
        if inner is not None:
            found.append(inner)
        elif outer is not None:
            found.insert(0, outer)
        else:
            return tuple(found)
