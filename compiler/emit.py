"""From a fused graph to a plan: buffers, launches, loops, and the places where workers have to wait.

Every value lives in a `Slot` (an input, an output, a constant, or a temporary of the arena). Emission walks the
schedule once, notes at which steps each slot is touched, then places temporaries (`memory.place`) and decides the
barriers (`barriers.py`). Loops and branches are emitted in `emit_control.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..ir.dims import Dim
from ..ir.errors import InternalError
from ..ir.graph import Graph
from ..ir.node import Node
from ..ir.types import TensorType
from ..runtime import plan as rt
from .backend.flags import CompileFlags
from .backend.kernel_store import KernelRequest
from .barriers import Barriers
from .emit_control import CONTROL
from .free_loops import free_loops
from .kernel import KernelSource, Link
from .lower import Launch, Lowered, Rows, lower
from .memory import Interval, place
from .schedule import ALIASES, Cell, cell_of, schedule
from .slots import Place, PlanEntry, Slot


@dataclass(frozen=True)
class Emitted:
    """A plan with the kernels it calls and the nodes its faults name.

    Attributes:
        kernels: every kernel by its name in the plan (the symbol of its code).
        sites: node of every fault site.
        texts: kernel IR of every kernel that has one.
    """

    plan: rt.Plan
    kernels: Mapping[str, KernelRequest]
    sites: tuple[Node, ...]
    texts: Mapping[str, str]


@dataclass
class _State:
    """What all levels of one emission share."""

    sizes: Mapping[str, int]
    slots: list[Slot] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, KernelRequest] = field(default_factory=dict)
    constants: list[rt.Constant] = field(default_factory=list)
    sites: list[Node] = field(default_factory=list)
    step: int = 0
    loops: list[dict[int, Slot]] = field(
        default_factory=list
    )  # slots of outer levels touched in each open loop


def emit(graph: Graph, sizes: Mapping[str, int]) -> Emitted:
    """The plan of a fused graph.

    Args:
        sizes: a binding of the named sizes to decide by; the plan is valid for any other.
    """
    # The fusion pass plans what it made, to weigh it; most often that is what is wanted next.
    if _last and _last[0][0] is graph and _last[0][1] == sizes:
        return _last[0][2]
    state = _State(sizes)
    top = Level(state, graph, depth=0)
    inputs = [_slot(state, "input", i, s.type) for i, s in enumerate(graph.inputs)]
    emitted = _assemble(graph, state, top.run_top(inputs))
    _last[:] = [(graph, dict(sizes), emitted)]
    return emitted


_last: list[tuple[Graph, dict[str, int], Emitted]] = []


def _slot(state: _State, kind: rt.BufferKind, index: int, t: TensorType, depth: int = 0) -> Slot:
    slot = Slot(kind, index, t.nbytes, t.dtype, t.shape, depth)
    state.slots.append(slot)
    return slot


class Level:
    """Emission of one graph: the whole step, or a body of control flow at some loop depth."""

    def __init__(self, state: _State, graph: Graph, depth: int) -> None:
        self.state, self.graph, self.depth = state, graph, depth
        self.schedule = schedule(graph, state.sizes)
        self.values: dict[Cell, Place] = {}
        self.entries: list[PlanEntry] = []
        self.last_reader: dict[Node, Node] = {}
        self.borrowed: set[int] = set()  # slots of the level around, which may read them again
        for n in self.schedule.launches:
            for i in n.inputs:
                self.last_reader[cell_of(i)[0]] = n

    # -- values -------------------------------------------------------------------------------------------------

    def at(self, node: Node) -> Place:
        """Where a value of the graph is."""
        cell = cell_of(node)
        if cell not in self.values:
            if cell[0].op.name != "constant":
                raise InternalError(f"the value of {cell[0].op.name} is used before it is computed")
            self.values[cell] = self._constant(cell[0])
        return self.values[cell]

    def _constant(self, node: Node) -> Place:
        data = node.attrs.value.tobytes()
        known = [i for i, c in enumerate(self.state.constants) if c.data == data]
        index = known[0] if known else len(self.state.constants)
        if not known:
            self.state.constants.append(rt.Constant(data))
        return Place(_slot(self.state, "constant", index, node.tensor_type))

    def temporary(self, t: TensorType) -> Place:
        return Place(_slot(self.state, "arena", 0, t, self.depth))

    def touch(self, where: Sequence[Place]) -> int:
        """A new step that uses these places."""
        step = self.state.step
        self.state.step += 1
        for p in where:
            self._touch(p.slot.home(), step)
        return step

    def touch_later(self, where: Sequence[Place]) -> None:
        """The next step uses these places."""
        for p in where:
            self._touch(p.slot.home(), self.state.step)

    def _touch(self, slot: Slot, step: int) -> None:
        slot.first = step if slot.first < 0 else slot.first
        slot.last = max(slot.last, step)
        for level, loop in enumerate(self.state.loops):
            if slot.depth <= level:
                loop[id(slot)] = slot

    # -- entries ------------------------------------------------------------------------------------------------

    def add(
        self,
        make: Callable[..., rt.Entry],
        reads: Sequence[Place],
        writes: Sequence[Place],
        rows: Rows | None = None,
    ) -> None:
        step = self.touch([*reads, *writes])
        self.entries.append(PlanEntry(make, list(reads), list(writes), step, rows=rows))

    def copy(self, source: Place, target: Place, t: TensorType, why: str) -> None:
        nbytes = t.nbytes

        def make(uses: Sequence[rt.BufferUse], waits: bool) -> rt.Entry:
            return rt.Copy(uses[0], uses[1], nbytes, waits, why)

        self.add(make, [source], [target])

    def run_top(self, inputs: Sequence[Slot]) -> list[PlanEntry]:
        """Emit the whole step: launches write outputs where they may, copies finish the rest."""
        graph = self.graph
        for i, slot in enumerate(inputs):
            self.values[graph.input_node(i), 0] = Place(slot)
        targets: dict[Cell, Place] = {}
        late: list[tuple[int, Place]] = []
        for k, (out, donated) in enumerate(zip(graph.outputs, graph.donations, strict=True)):
            cell = cell_of(out)
            slot = inputs[donated] if donated is not None else _slot(self.state, "output", k, out.tensor_type)
            if donated is not None and cell == (graph.input_node(donated), 0):
                continue  # unchanged: the output is the input's very memory
            direct = donated is None or k in self.schedule.in_place
            if direct and cell[0].op.name not in ("input", "constant") and cell not in targets:
                targets[cell] = Place(slot)
            else:
                late.append((k, Place(slot)))
        self.launch_all(targets)
        plain = [(k, p) for k, p in late if graph.donations[k] is None]
        for k, where in plain:
            self.copy(self.at(graph.outputs[k]), where, graph.outputs[k].tensor_type, "output")
        replacing = [(graph.outputs[k], p) for k, p in late if graph.donations[k] is not None]
        self._copy_all(replacing, {id(p.slot.home()) for _, p in replacing})
        return self.entries

    def _copy_all(self, moves: Sequence[tuple[Node, Place]], overwritten: set[int]) -> None:
        """Copy values to their places at once: a source that some copy overwrites is saved before the first copy."""
        sources = []
        for out, _ in moves:
            source = self.at(out)
            if id(source.slot.home()) in overwritten:
                aside = self.temporary(out.tensor_type)
                self.copy(source, aside, out.tensor_type, "save")
                source = aside
            sources.append(source)
        for (out, where), source in zip(moves, sources, strict=True):
            self.copy(source, where, out.tensor_type, "result")

    def launch_all(self, targets: Mapping[Cell, Place]) -> None:
        for node in self.schedule.launches:
            special = CONTROL.get(node.op.name)
            if special is not None:
                special(self, node, targets)
            else:
                self.launch(node, targets)

    def launch(self, node: Node, targets: Mapping[Cell, Place]) -> None:
        """The kernels of one node."""
        low = lower(node)
        inputs = [self.at(i) for i in node.inputs]
        results = self._results(node, low, inputs, targets)
        temporaries = [self.temporary(t) for t in low.temporaries]
        where = {"input": inputs, "result": results, "temporary": temporaries}
        label = f"{node.place.scope}/{_label(node)}" if node.place.scope else _label(node)
        for step in low.launches:
            self._kernel(step, [where[o.role][o.index].shifted(o.offset) for o in step.operands], label)
        for r, (t, found) in enumerate(zip(node.result_types, results, strict=True)):
            wanted = targets.get((node, r))
            if wanted is not None and found is not wanted:
                self.copy(found, wanted, t, "output")
                self.values[node, r] = wanted

    def _kernel(self, step: Launch, operands: Sequence[Place], label: str) -> None:
        reads, writes = operands[: len(operands) - step.outputs], operands[len(operands) - step.outputs :]
        flags = CompileFlags()
        if not step.computed_slots and not step.kernel.links:
            flags = _aliasing(step.kernel.noalias, reads, writes)
        key = self._register(step.kernel, flags)
        links = tuple(self._link(link, reads, writes) for link in step.kernel.links)
        self.state.texts.setdefault(links[-1] if links else key, step.ir)  # a kernel with links serves many launches
        faults = tuple(rt.Fault(number, n.op.name, self._site(n)) for number, n in enumerate(step.faults))

        def make(uses: Sequence[rt.BufferUse], waits: bool, rows: Rows | None = None) -> rt.Entry:
            return rt.KernelCall(
                key,
                tuple(uses),
                rows.extents if rows is not None and rows.extents is not None else step.extents,
                step.range if rows is None else rows.range,
                step.outputs,
                step.grain,
                step.scratch,
                step.fallible,
                waits,
                step.work,
                label,
                faults,
                links,
                0 if rows is None else rows.extent,
            )

        self.add(make, reads, writes, step.rows)

    def _register(self, kernel: KernelSource, flags: CompileFlags) -> str:
        """Note a kernel to be had; its name in the plan."""
        request = KernelRequest(kernel.source, kernel.entry, replace(flags, vectorised=kernel.vectorised))
        self.state.kernels[request.symbol] = request
        return request.symbol

    def _link(self, link: Link, reads: Sequence[Place], writes: Sequence[Place]) -> str:
        """A kernel called by a launch's kernel, for its part of the operands."""
        first, kernel = link.first, link.kernel
        own = [*reads, *writes][first : first + kernel.n_buffers]
        cut = max(len(reads) - first, 0)
        return self._register(kernel, _aliasing(kernel.noalias, own[:cut], own[cut:]))

    def _site(self, node: Node) -> int:
        self.state.sites.append(node)
        return len(self.state.sites) - 1

    def _results(
        self, node: Node, low: Lowered, inputs: Sequence[Place], targets: Mapping[Cell, Place]
    ) -> list[Place]:
        """Places of a launch's results. A wanted place that an operand lies in is taken only where that is safe."""
        places: list[Place] = []
        for r, t in enumerate(node.result_types):
            target = targets.get((node, r))
            if target is not None:
                over = [i for i, p in enumerate(inputs) if p.meets(target)]
                if over and not all((r, i) in low.in_place for i in over):
                    target = self.temporary(t)
            target = target or self._reuse(node, low, r, t, places) or self.temporary(t)
            places.append(target)
            self.values[node, r] = target
        return places

    def _reuse(self, node: Node, low: Lowered, r: int, t: TensorType, taken: Sequence[Place]) -> Place | None:
        """An operand's temporary that dies here and may hold result `r`."""
        for result, i in low.in_place:
            if result != r:
                continue
            operand = node.inputs[i]
            cell = cell_of(operand)
            where = self.values.get(cell)
            if (
                where is None
                or where.slot.kind != "arena"
                or where.offset != 0
                or where.strides
                or where.slot.depth != self.depth
                or id(where.slot.home()) in self.borrowed
                or self.last_reader.get(cell[0]) is not node
                or where.slot.nbytes != t.nbytes
                or cell in self._outputs()
                or any(p.slot.home() is where.slot.home() for p in taken)
            ):
                continue
            slot = _slot(self.state, "arena", 0, t, self.depth)
            slot.host = where.slot
            return Place(slot)
        return None

    def _outputs(self) -> set[Cell]:
        if not hasattr(self, "_output_cells"):
            self._output_cells = {cell_of(o) for o in self.graph.outputs}
        return self._output_cells

    # -- bodies -------------------------------------------------------------------------------------------------

    def body(
        self, graph: Graph, operands: Sequence[Place], results: Sequence[Place], loops: int
    ) -> list[PlanEntry]:
        """Entries of a body whose outputs end in `results`. Those that cannot be written there by the launch that
        computes them are copied when all of the body has run.

        Args:
            graph: an output that it donates an input to ends where that input lies.
        """
        level = Level(self.state, graph, self.depth + loops)
        for i, where in enumerate(operands):
            level.values[graph.input_node(i), 0] = where
        level.borrowed = held = {id(p.slot.home()) for p in operands}
        targets: dict[Cell, Place] = {}
        late: list[tuple[Node, Place]] = []
        for k, (out, where) in enumerate(zip(graph.outputs, results, strict=True)):
            cell = cell_of(out)
            free = k in level.schedule.in_place or not any(where.meets(p) for p in operands)
            if free and cell not in targets and cell[0].op.name not in ("input", "constant"):
                targets[cell] = where
            elif level.values.get(cell) != where:
                late.append((out, where))
        level.launch_all(targets)
        level._copy_all(late, held & {id(p.slot.home()) for _, p in late})
        return level.entries

    def open_loop(self) -> None:
        self.state.loops.append({})

    def close_loop(self) -> int:
        """End of a loop: what was made outside and used inside stays alive through all of it."""
        touched = self.state.loops.pop()
        step = self.state.step
        self.state.step += 1
        for slot in touched.values():
            slot.last = max(slot.last, step)
            for level, loop in enumerate(self.state.loops):
                if slot.depth <= level:
                    loop[id(slot)] = slot
        return step

    def results_at(self, node: Node, targets: Mapping[Cell, Place]) -> list[Place]:
        places = []
        for r, t in enumerate(node.result_types):
            where = targets.get((node, r)) or self.temporary(t)
            self.values[node, r] = where
            places.append(where)
        return places


def _aliasing(noalias: bool, reads: Sequence[Place], writes: Sequence[Place]) -> CompileFlags:
    """Which operands of a launch are the same memory."""
    pairs: list[tuple[int, int]] = []
    for r, target in enumerate(writes):
        over = [k for k, p in enumerate(reads) if p.meets(target)]
        if not over:
            continue
        source = reads[over[0]]
        if len(over) > 1 or (source.offset, source.strides) != (target.offset, target.strides):
            return CompileFlags(noalias=False)
        pairs.append((over[0], len(reads) + r))
    return CompileFlags(noalias, tuple(pairs))


def _label(node: Node) -> str:
    if node.op.name != "fused":
        return node.op.name
    names = [
        n.op.name
        for n in node.attrs.body.nodes
        if n.op.name not in ("input", "constant", "broadcast", *ALIASES)
    ]
    shown = "+".join(dict.fromkeys(names))
    return f"{node.attrs.kind}:{shown if len(shown) < 60 else shown[:57] + '...'}"


# -- assembly -------------------------------------------------------------------------------------------------------


def _assemble(graph: Graph, state: _State, entries: list[PlanEntry]) -> Emitted:
    free = free_loops(entries, state.sizes)
    homes = [s for s in state.slots if s.kind == "arena" and s.host is None and s.first >= 0]
    placement = place([Interval(s.nbytes, s.first, s.last) for s in homes], state.sizes)
    offsets: dict[int, Dim] = {id(s): o for s, o in zip(homes, placement.offsets, strict=True)}
    used = [s for s in state.slots if s.kind != "arena" or id(s.home()) in offsets]
    numbers = {id(s): i for i, s in enumerate(used)}
    buffers = tuple(
        rt.BufferSpec(s.kind, s.index, offsets.get(id(s.home()), 0), s.nbytes, s.dtype, s.shape) for s in used
    )
    barriers = Barriers(entries, free)
    built = _build(entries, numbers, barriers)
    inputs = tuple(rt.PlanInput(s.name, s.type.dtype, s.type.shape) for s in graph.inputs)
    outputs = tuple(
        rt.PlanOutput(name, o.dtype, o.shape, -1 if d is None else d)
        for name, o, d in zip(graph.output_names, graph.outputs, graph.donations, strict=True)
    )
    plan = rt.Plan(
        graph.name,
        rt.find_sizes(inputs, tuple(n for n, _ in graph.sizes)),
        inputs,
        outputs,
        buffers,
        built,
        tuple(state.constants),
        placement.peak,
        {"defaults": dict(graph.sizes)},
        placement.lets,
    )
    return Emitted(plan, state.kernels, tuple(state.sites), state.texts)


def _build(
    entries: Sequence[PlanEntry], numbers: Mapping[int, int], barriers: Barriers
) -> tuple[rt.Entry, ...]:
    built = []
    for e in entries:
        uses = [rt.BufferUse(numbers[id(p.slot)], p.offset, p.strides) for p in (*e.reads, *e.writes)]
        more: list[object] = [_build(b, numbers, barriers) for b in e.bodies]
        if id(e) in barriers.rows:
            more.append(barriers.rows[id(e)])
        built.append(e.make(uses, barriers.needed.get(id(e), True), *more))
    return tuple(built)


__all__ = ["Emitted", "emit"]
