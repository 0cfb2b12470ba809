"""What follows a convolution in its group, as the epilogue of the convolution's kernel."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim
from ...ir.graph import Graph
from ...ir.node import Node, postorder
from ..contract.text import Epilogue
from .collapse import collapse
from .epilogue import Tile, write_epilogue
from .index_maps import Vector, axis, flatten
from .kernel_ir import Axis, Kernel, Load, Operand, dump
from .locate import forward
from .lowered import Slot
from .overwrite import overwritable
from .sizes import GroupSizes
from .space import Space
from .values import Values

_RESULT = "product"


@dataclass(frozen=True)
class Tail:
    """An epilogue and how it is launched.

    Attributes:
        extents: its extents as dims of the graph.
        slots: its operands.
        in_place: pairs (result, input of the node) that may share memory.
        text: its kernel IR.
    """

    epilogue: Epilogue
    extents: tuple[Dim, ...]
    slots: tuple[Slot, ...]
    in_place: tuple[tuple[int, int], ...]
    text: str


def product_tail(body: Graph, inputs: tuple[int, ...], core: Node, batch: int, rows: int) -> Tail:
    """The epilogue of a body around `core`, its store alone included.

    Args:
        batch, rows: how many of the result's axes are batch axes and, behind them, row axes of a tile.

    Raises:
        CannotLower: an epilogue cannot do that.
    """
    nodes = postorder(body.outputs)
    sizes = GroupSizes(nodes, body.outputs)
    shape = sizes.shape(core)
    names = [*(f"b{k}" for k in range(batch)), *(f"p{k}" for k in range(rows)),
             *(f"q{k}" for k in range(len(shape) - batch - rows))]
    kept = tuple(Axis(name, extent) for name, extent in zip(names, shape, strict=True))
    index: Vector = tuple(0 if a.extent == 1 else axis(a.name) for a in kept)
    space = Space(kept, (), (tuple(a for a in kept if a.extent != 1),))
    buffers = {n: Operand(f"x{n.attrs.index}", n.dtype, sizes.shape(n)) for n in nodes if n.op.name == "input"}
    values = Values(sizes, space, buffers)
    values.assume(core, index, _RESULT)
    located = forward(nodes, {core: index}, sizes, space.extents)
    outputs = body.outputs
    targets = [Operand(f"y{k}", o.dtype, sizes.shape(o), output=True) for k, o in enumerate(outputs)]
    places = [located.get(o) or space.locate(t.extents) for o, t in zip(outputs, targets, strict=True)]
    values.store_all(outputs, places, targets)
    read = {i.operand for i in values.body if isinstance(i, Load)}
    extra = [o for o in buffers.values() if o.name in read]
    # The first instruction stands for the convolution itself.
    marker = Load(_RESULT, "product", flatten(index, shape), core.dtype.compute)
    what = " ".join(n.op.name for n in nodes if n.op.name not in ("input", "constant", "broadcast"))
    kernel = Kernel("conv", (*extra, *targets), kept, (), (marker, *values.body), (f"{core.op.name}: {what}",))
    groups = [[a.name for a in kept if a.name[0] == letter] for letter in "bpq"]
    kernel = collapse(kernel, apart=[group[0] for group in groups if len(group) == 1])
    batches, lines, columns = (tuple(a for a in kernel.kept if a.name[0] == letter) for letter in "bpq")
    tile = Tile(batches, lines, columns, _RESULT)
    epilogue, extents = write_epilogue(kernel, kernel.body[1:], kernel.operands, tile, core.dtype.compute)
    slots = [Slot("input", inputs[int(o.name[1:])]) for o in extra] + [Slot("result", k) for k in range(len(targets))]
    taken = {inputs[x.attrs.index] for x in core.inputs}
    pairs = [(int(r[1:]), inputs[int(x[1:])]) for r, x in overwritable(kernel)]
    return Tail(epilogue, tuple(map(sizes.sizes.real, extents)), tuple(slots),
                tuple((r, x) for r, x in pairs if x not in taken), dump(kernel))
