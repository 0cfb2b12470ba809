"""Template `update`: one elementwise kernel over many tensors, such as all parameters of a model.

The tensors are segments of one parallel range; a table in the extents says where each begins. Operands are found by
computed slots, so the text knows nothing of how many segments there are: operands that all segments share come first,
then the inputs segment by segment, then the results.
"""

from __future__ import annotations

from ...ir.dims import Dim, product
from ...ir.graph import Graph
from ...ir.node import Node, postorder
from ..kernel import KernelSource
from .emit_map import BLOCK
from .errors import CannotLower
from .group import Built, build, in_place_pairs
from .kernel_ir import Kernel, Store, dump
from .lowered import Launch, Lowered, Slot
from .source import SIGNATURE, Writer, module, storage


def is_segment(built: Built) -> bool:
    """Whether a group can be a segment: elementwise over contiguous tensors (or single values), no extent but their
    size."""
    kernel, w = built.kernel, Writer()
    if kernel.template != "map" or len(kernel.kept) > 1 or built.faults:
        return False
    for i in kernel.body:
        w.instruction(i, {o.name: o for o in kernel.operands})
    return not w.extents


def segment_text(built: Built) -> str:
    """What groups must have in common to be segments of one kernel."""
    return _source(built.kernel, frozenset())


def lower_segments(body: Graph, count: int) -> Lowered:
    """A body whose outputs are `count` equal groups, one behind the other, as one launch.

    Raises:
        CannotLower: the first of them is no segment.
    """
    width = len(body.outputs) // count
    parts = [body.outputs[s * width:(s + 1) * width] for s in range(count)]
    reads = [_inputs(part) for part in parts]
    first = build(Graph("segment", body.inputs, parts[0]), range(len(body.inputs)))
    if not is_segment(first):
        raise CannotLower("segments of an update are elementwise over contiguous tensors")
    kernel = first.kernel
    # The inputs of equal groups come in the same order: position p of one is position p of all.
    position = {o.name: reads[0].index(first.slots[o.name].index) for o in kernel.operands if not o.output}
    shared = [name for name, p in position.items() if len({r[p] for r in reads}) == 1]
    own = [name for name in position if name not in shared]
    slots = [Slot("input", reads[0][position[name]]) for name in shared]
    slots += [Slot("input", read[position[name]]) for read in reads for name in own]
    slots += [Slot("result", k) for k in range(len(body.outputs))]
    sizes = [product(part[0].shape) for part in parts]
    starts: list[Dim] = [0]
    for size in sizes:
        starts.append(starts[-1] + (size + (BLOCK - 1)) // BLOCK)
    names = ("segments", *(f"start_{s}" for s in range(count + 1)), *(f"size_{s}" for s in range(count)))
    source = KernelSource("kernel", _source(kernel, frozenset(shared)), len(slots), names)
    work: Dim = 0
    for size in sizes:
        work = work + size * len(kernel.body)
    pairs = tuple((s * width + r, read[reads[0].index(i)]) for s, read in enumerate(reads)
                  for r, i in in_place_pairs(first) if _depends(kernel, r, i))
    launch = Launch(source, tuple(slots), (count, *starts, *sizes), starts[-1], len(body.outputs), work=work,
                    ir=dump(kernel), computed_slots=True)
    return Lowered((launch,), in_place=pairs)


def _inputs(outputs: tuple[Node, ...]) -> list[int]:
    """The body inputs below some outputs, in an order that their structure decides."""
    return [n.attrs.index for n in postorder(outputs) if n.op.name == "input"]


def _depends(kernel: Kernel, result: int, source: int) -> bool:
    """Whether a result is computed from an input's elements: then they are read before it is written."""
    store = next(i for i in kernel.body if isinstance(i, Store) and i.operand == f"y{result}")
    return f"x{source}" in kernel.operands_behind(store)


def _source(kernel: Kernel, shared: frozenset[str]) -> str:
    w = Writer()
    common = [o for o in kernel.operands if o.name in shared]
    inputs = [o for o in kernel.operands if not o.output and o.name not in shared]
    outputs = [o for o in kernel.operands if o.output]
    first_result = f"{len(common)} + segments * {len(inputs)} + segment * {len(outputs)}"
    for k, o in enumerate(common):
        w.line(f"{o.name} = {storage(o.dtype)}_ptr(buffers, {k}, {k})")
    w.line("segments = extents[0]")
    per_point = [i for i in kernel.body if kernel.axes[i]]
    per_segment = [i for i in kernel.body if not kernel.axes[i]]
    once = [i for i in per_segment if not isinstance(i, Store) and kernel.operands_behind(i) <= shared]
    w.instructions(once, kernel)
    w.line("segment = 0")
    w.line("step = begin")
    with w.block("while step < end:"):
        with w.block("while step >= extents[2 + segment]:"):
            w.line("segment += 1")
        w.line("stop = min(end, extents[2 + segment])")
        for k, o in enumerate(inputs):
            place = f"{len(common)} + segment * {len(inputs)} + {k}"
            w.line(f"{o.name} = {storage(o.dtype)}_ptr(buffers, {place}, {len(common) + k})")
        for k, o in enumerate(outputs):
            group = len(common) + len(inputs) + k
            w.line(f"{o.name} = {storage(o.dtype)}_ptr(buffers, {first_result} + {k}, {group})")
        w.instructions([i for i in per_segment if i not in once], kernel)
        if kernel.kept:
            w.line(f"first = (step - extents[1 + segment]) * {BLOCK}")
            w.line(f"last = min(first + (stop - step) * {BLOCK}, extents[2 + segments + segment])")
            with w.block(f"for {kernel.kept[0].name} in range(first, last):"):
                w.instructions(per_point, kernel)
        w.line("step = stop")
    body = "\n".join([SIGNATURE, *w.lines, "    return 0"])
    return module(body, (f"update of segments, {kernel.comments[0]}",))
