"""Lowering of a group of loop-like operators: one body graph → kernel IR → launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dims import Dim, names, product
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node, postorder
from ...ir.types import TensorType
from .collapse import collapse
from .emit_columns import emit_columns
from .emit_fold import emit_fold
from .emit_map import Emitted, emit_map
from .emit_rows import emit_rows
from .grid import take_apart
from .index_maps import Vector, coefficients
from .kernel_ir import Apply, Instruction, Kernel, Load, Operand, Reduce, Store, dump
from .locate import forward
from .lowered import Launch, Lowered, Slot
from .overwrite import overwritable
from .row_split import rows_of
from .sizes import GroupSizes, Sizes
from .space import Space, map_space, reduction_space, reductions_of
from .values import Values

# Kind of the groups that update many tensors alike; behind it stands how many.
UPDATE = "update:"
_EMIT = {"map": emit_map, "row": emit_rows, "column": emit_columns}
_SILENT = frozenset({"input", "constant", "broadcast", "reshape", "permute", "extent", "stop_gradient"})


@dataclass(frozen=True)
class Built:
    """A group's kernel IR with what connects it to the node.

    Attributes:
        slots: what each operand is, by its name.
        faults: the node behind each check.
    """

    kernel: Kernel
    sizes: Sizes
    slots: dict[str, Slot]
    faults: tuple[Node, ...]


def body_of(node: Node) -> Graph:
    """A body that holds just a node."""
    specs: list[InputSpec] = []
    places: dict[Node, Node] = {}
    mapped: list[Node] = []
    for x in node.inputs:
        if x.op.name == "constant" and not x.tensor_type.rank:
            mapped.append(x)
            continue
        if x not in places:
            places[x] = input_node(len(specs), x.tensor_type)
            specs.append(InputSpec(f"x{len(specs)}", x.tensor_type))
        mapped.append(places[x])
    return Graph(node.op.name, tuple(specs), (node.with_inputs(mapped),))


def inputs_of(node: Node) -> tuple[int, ...]:
    """For every input of `body_of(node)` the index of the node's input that it is."""
    seen: dict[Node, int] = {}
    for k, x in enumerate(node.inputs):
        if not (x.op.name == "constant" and not x.tensor_type.rank):
            seen.setdefault(x, k)
    return tuple(seen.values())


def build(body: Graph, inputs: Sequence[int]) -> Built:
    """The kernel IR of a body.

    Raises:
        CannotLower: no template covers it.
    """
    nodes = postorder(body.outputs)
    sizes = GroupSizes(nodes, body.outputs)
    reductions = reductions_of(nodes)
    space = reduction_space(reductions, sizes) if reductions else map_space(_widest(body, sizes))
    operands: dict[Node, Operand] = {}
    slots: dict[str, Slot] = {}
    for n in nodes:
        if n.op.name == "input":
            name = f"x{n.attrs.index}"
            operands[n] = Operand(name, n.dtype, sizes.shape(n))
            slots[name] = Slot("input", inputs[n.attrs.index])
    # Draws: every parameter of a model is filled with the same distribution between bounds of its own.
    values = Values(sizes, space, operands, numbers=any(n.op.name == "random_bits" for n in nodes))
    located = _located(nodes, reductions, sizes, space)
    results = [Operand(f"y{k}", out.dtype, sizes.shape(out), output=True) for k, out in enumerate(body.outputs)]
    slots |= {target.name: Slot("result", k) for k, target in enumerate(results)}
    places = [located.get(out) or space.locate(target.extents)
              for out, target in zip(body.outputs, results, strict=True)]
    values.store_all(body.outputs, places, results)
    loaded = {i.operand for i in values.body if isinstance(i, Load)}
    ordered = [o for o in sorted(operands.values(), key=lambda o: int(o.name[1:])) if o.name in loaded]
    names = [n.op.name for n in nodes if n.op.name not in _SILENT]
    kernel = Kernel(space.template, (*ordered, *results), space.kept, space.reduced, tuple(values.body),
                    (f"{space.template}: {' '.join(names) or 'copy'}",))
    return Built(collapse(kernel), sizes.sizes, slots, tuple(values.sites))


def _located(nodes: Sequence[Node], reductions: Sequence[Node], sizes: GroupSizes, space: Space) -> dict[Node, Vector]:
    """Coordinates of the nodes around the reductions."""
    known: dict[Node, Vector] = {}
    for r in reductions:
        known[r] = space.points[r].own
        known.setdefault(r.inputs[0], space.points[r].operand)
    return forward(nodes, known, sizes, space.extents)


def _widest(body: Graph, sizes: GroupSizes) -> tuple[Dim, ...]:
    return sizes.shape(max(body.outputs, key=lambda o: sum(d != 1 for d in o.shape)))


def has_plain_strides(kernel: Kernel) -> bool:
    """Whether no address takes axes apart by division."""
    axes = {a.name for a in kernel.kept + kernel.reduced}
    for i in kernel.body:
        address = i.address if isinstance(i, (Load, Store)) else 0
        for moving in coefficients(address):
            if any(not isinstance(a, str) and axes & {*names(a.left), *names(a.right)} for a in moving):
                return False
    return True


def lower_group(body: Graph, inputs: Sequence[int], kind: str) -> Lowered:
    """A body of loop-like operators as launches.

    Args:
        inputs: for each input of the body the input of the node that it is.
        kind: of the fused node; updates of many tensors say so there.
    """
    if kind.startswith(UPDATE):
        from .emit_update import lower_segments

        return lower_segments(body, int(kind.removeprefix(UPDATE)))
    built = build(body, inputs)
    if built.kernel.template == "grid":
        return _grid(built)
    emitted = _EMIT[built.kernel.template](built.kernel)
    return Lowered((_launch(built, built.kernel, emitted, built.slots),), in_place=in_place_pairs(built))


def _grid(built: Built) -> Lowered:
    grid = take_apart(built.kernel)
    slots = built.slots | {o.name: Slot("temporary", k) for k, o in enumerate(grid.temporaries)}
    types = tuple(TensorType(o.dtype, tuple(built.sizes.real(d) for d in o.extents)) for o in grid.temporaries)
    launches = []
    for part in grid.parts:
        emit = emit_rows if part.kernel.template == "row" else emit_fold
        launches.append(_launch(built, part.kernel, emit(part.kernel, part.accumulators), slots))
    return Lowered(tuple(launches), types, in_place_pairs(built))


def _launch(built: Built, kernel: Kernel, emitted: Emitted, slots: dict[str, Slot]) -> Launch:
    real = built.sizes.real
    rows = rows_of(kernel, emitted.split, emitted.operands, real, emitted.range) if emitted.split else None
    return Launch(emitted.source, tuple(slots[o.name] for o in emitted.operands), tuple(map(real, emitted.extents)),
                  real(emitted.range), sum(o.output for o in emitted.operands), emitted.grain, real(emitted.scratch),
                  work=real(_work(kernel)), faults=built.faults, rows=rows, ir=dump(kernel))


def _work(kernel: Kernel) -> Dim:
    """Operations and accesses of the whole kernel."""
    kept, reduced = (product([a.extent for a in axes]) for axes in (kernel.kept, kernel.reduced))
    reduced_names = {a.name for a in kernel.reduced}
    total: Dim = 0
    for i in kernel.body:
        inside = bool(kernel.axes[i] & reduced_names) or isinstance(i, Reduce)
        total = total + _weight(i) * (kept * reduced if inside else kept)
    return total


def _weight(i: Instruction) -> int:
    return max(i.cost, 1) if isinstance(i, Apply) else 1


def in_place_pairs(built: Built) -> tuple[tuple[int, int], ...]:
    """Pairs (result, input) that may be one buffer."""
    kernels = [built.kernel]
    if built.kernel.template == "grid":
        kernels = [p.kernel for p in take_apart(built.kernel).parts]
    return tuple((built.slots[r].index, built.slots[x].index) for r, x in overwritable(*kernels)
                 if r in built.slots and x in built.slots)
