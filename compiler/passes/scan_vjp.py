"""The derivative of a scan: a scan in the other direction over what the forward loop kept.

The forward loop gets extra stacked results for exactly the values that are read later (Griewank and Walther,
"Evaluating Derivatives", ch. 12). The cotangents of the carries are carried, those of the scanned operands
are stacked, those of loop-invariant operands are carried sums. What need not be done step by step is done
once after the loop: a weight's gradient, the sum over the steps of `dot(p, q)`, is one `dot` of the stacked p
and q with the steps as one more contracted axis, and a scanned operand's gradient `dot(p, weight)` is one
`dot` of the stacked p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...ir.build import Builder
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from ...ir.types import TensorType
from .activity import active_nodes, forward_reads
from .loops import merge_loops
from .rewriting import depends_on, substitute

Backward = Callable[[Sequence[Node], Sequence[Node], Sequence[Node]], list[Node]]

# Operators on a step's value that are the same operator on the stack of all steps' values.
_LIFTED = frozenset({"permute", "reshape", "neg"})


def scan_vjp(backward: Backward, b: Builder, node: Node, given: Sequence[Node | None],
             needed: Sequence[bool]) -> list[Node | None]:
    """Cotangents of a scan's operands.

    Args:
        backward: the reverse sweep, for the body.
        given: cotangents of the results, None where none arrived.
        needed: which operands need one.
    """
    loop = _Loop(node, needed)
    step = _Step(backward, loop, given)
    after = _AfterLoop(loop, step)
    scan = _BackwardScan(b, loop, step, given, after)
    return [scan.cotangent(i) if wanted else None for i, wanted in enumerate(needed)]


def with_stacks(scan: Node, values: Sequence[Node]) -> Node:
    """The scan with more stacked results: `values` are nodes of its body (its inputs included)."""
    body = scan.attrs.body
    wider = merge_loops(Graph(body.name, body.inputs, (*body.outputs, *values)))
    return Node.make(scan.op, scan.inputs, scan.attrs._replace(body=wider), scan.place)


def _arguments(first: int, types: Sequence[TensorType]) -> list[Node]:
    """Input nodes number `first`, `first + 1`, …"""
    return [input_node(first + i, t) for i, t in enumerate(types)]


class _Loop:
    """A scan taken apart, and which operands get a cotangent."""

    def __init__(self, node: Node, needed: Sequence[bool]) -> None:
        self.node, self.body = node, node.attrs.body
        self.n_carry, self.first_const = node.attrs.n_carry, node.attrs.n_carry + node.attrs.n_xs
        self.inputs = [self.body.input_node(i) for i in range(len(self.body.inputs))]
        active = self._active(needed)
        self.carries = [i for i in active if i < self.n_carry]
        self.scanned = [i for i in active if self.n_carry <= i < self.first_const]
        self.consts = [i for i in active if i >= self.first_const]
        self.active = active
        # What depends on invariants alone is never stacked: it is computed again.
        self.changing = depends_on(self.body.outputs, self.inputs[:self.first_const], lambda _: True)

    def _active(self, needed: Sequence[bool]) -> list[int]:
        """Operands that need a cotangent, and carries that depend on them in the loop."""
        active = {i for i, wanted in enumerate(needed) if wanted}
        while True:
            moved = active_nodes(self.body.outputs, [self.inputs[i] for i in sorted(active)])
            grown = {i for i in range(self.n_carry) if self.body.outputs[i] in moved} - active
            if not grown:
                return sorted(active)
            active |= grown


class _Step:
    """One step backwards: from cotangents of active carries and of the stacked results that received one.

    Attributes:
        entering: numbers of those body outputs; places: the nodes that stand for their cotangents.
        gradient: operand number → its cotangent in this step.
        late: the nodes that depend on `places`.
    """

    def __init__(self, backward: Backward, loop: _Loop, given: Sequence[Node | None]) -> None:
        outputs = loop.body.outputs
        moved = active_nodes(outputs, [loop.inputs[i] for i in loop.active])
        self.entering = [i for i, out in enumerate(outputs)
                         if (i in loop.carries if i < loop.n_carry
                             else given[i] is not None and out in moved)]
        self.places = _arguments(len(loop.inputs), [outputs[i].tensor_type for i in self.entering])
        found = backward([outputs[i] for i in self.entering], self.places,
                         [loop.inputs[i] for i in loop.active])
        self.gradient = dict(zip(loop.active, found, strict=True))
        self.late = depends_on(found, self.places, lambda _: True)


class _AfterLoop:
    """What is computed once after the backward loop, from stacks of the steps' values.

    Attributes:
        operands: numbers of the operands whose cotangents are.
        bases: the body's nodes whose stacks that takes.
    """

    def __init__(self, loop: _Loop, step: _Step) -> None:
        self._loop, self._step = loop, step
        self.operands: list[int] = []
        self.bases: dict[Node, None] = {}
        for i in loop.scanned:
            self._try(i, self._stacked_parts(step.gradient[i]))
        for i in loop.consts:
            self._try(i, self._summed_parts(step.gradient[i], sums=False))
        for i in loop.consts:  # a plain sum waits for the loop's end only if its operand is stacked anyway
            parts = self._summed_parts(step.gradient[i], sums=True)
            if i not in self.operands and parts is not None and all(p in self.bases for p in parts):
                self._try(i, parts)

    def _try(self, operand: int, parts: list[Node] | None) -> None:
        if parts is not None:
            self.operands.append(operand)
            self.bases.update(dict.fromkeys(parts))

    def _varies(self, x: Node) -> bool:
        return x in self._step.late or x in self._loop.changing

    def _base(self, x: Node) -> Node:
        while x.op.name in _LIFTED:
            x = x.inputs[0]
        return x

    def _stacked_parts(self, g: Node) -> list[Node] | None:
        """The nodes to stack for the stack of `g`, if that is one contraction with an invariant."""
        if g.op.name != "dot" or g.attrs.batch_a or g not in self._step.late:
            return None
        p, w = g.inputs
        return [self._base(p)] if self._varies(p) and not self._varies(w) else None

    def _summed_parts(self, g: Node, sums: bool) -> list[Node] | None:
        """The nodes to stack for the sum of `g` over all steps, if contractions (and `sums`) do it."""
        match g.op.name:
            case "permute" | "reshape" | "neg":
                return self._summed_parts(g.inputs[0], sums)
            case "add":
                left, right = (self._summed_parts(x, sums) for x in g.inputs)
                return None if left is None or right is None else left + right
            case "dot" if all(map(self._varies, g.inputs)):
                return [self._base(x) for x in g.inputs]
            case "sum" if sums and self._varies(g.inputs[0]):
                return [self._base(g.inputs[0])]
            case _:
                return None

    def cotangent(self, b: Builder, operand: int, stacks: dict[Node, Node]) -> Node:
        """The cotangent of an operand, from the stacks of `bases`."""
        g = self._step.gradient[operand]
        if operand in self._loop.consts:
            return self._summed(b, g, stacks)
        p, w = g.inputs
        outer = {x: self._loop.node.inputs[i] for i,
                 x in enumerate(self._loop.inputs) if i >= self._loop.first_const}
        weight, = substitute([w], outer)
        contract_a = tuple(c + 1 for c in g.attrs.contract_a)
        return b.dot(self._lifted(b, p, stacks), weight, contract_a=contract_a, contract_b=g.attrs.contract_b)

    def _summed(self, b: Builder, g: Node, stacks: dict[Node, Node]) -> Node:
        match g.op.name:
            case "dot":
                x, y = (self._lifted(b, i, stacks) for i in g.inputs)
                a = g.attrs
                return b.dot(x, y, contract_a=_shifted((-1, *a.contract_a)), batch_a=_shifted(a.batch_a),
                             contract_b=_shifted((-1, *a.contract_b)), batch_b=_shifted(a.batch_b))
            case "sum":
                return b.sum(self._lifted(b, g.inputs[0], stacks), axes=_shifted((-1, *g.attrs.axes)))
            case _:
                return Node.make(g.op, [self._summed(b, i, stacks) for i in g.inputs], g.attrs, b.place)

    def _lifted(self, b: Builder, x: Node, stacks: dict[Node, Node]) -> Node:
        """The stack of a node that is a base or a chain of views of one."""
        if x.op.name not in _LIFTED:
            return stacks[x]
        inner = self._lifted(b, x.inputs[0], stacks)
        match x.op.name:
            case "permute":
                return b.permute(inner, dims=(0, *_shifted(x.attrs.dims)))
            case "reshape":
                return b.reshape(inner, shape=(self._loop.node.attrs.length, *x.shape))
            case _:
                return b.neg(inner)


def _shifted(axes: Sequence[int]) -> tuple[int, ...]:
    """Axis numbers behind the leading axis of the steps (−1 becomes that axis)."""
    return tuple(a + 1 for a in axes)


class _BackwardScan:
    """The scan that runs the steps, and everything around it."""

    def __init__(self, b: Builder, loop: _Loop, step: _Step, given: Sequence[Node | None],
                 after: _AfterLoop) -> None:
        self._b, self._loop, self._after = b, loop, after
        sums = [i for i in loop.consts if i not in after.operands]
        slices = [i for i in loop.scanned if i not in after.operands]
        at_hand = {place: given[i] for i,
                   place in zip(step.entering, step.places, strict=True) if i >= loop.n_carry}
        late_bases = [x for x in after.bases if x in step.late and x not in at_hand]
        totals = _arguments(len(loop.inputs) + len(step.places), [loop.inputs[i].tensor_type for i in sums])

        # Each operand with the node that stands for its slice in the step.
        carried: list[tuple[Node, Node]] = []
        scanned: list[tuple[Node, Node]] = []
        for i, place in zip(step.entering, step.places, strict=True):
            target = carried if i < loop.n_carry else scanned
            target.append((place, given[i] or self._zeros(loop.node.result_types[i])))
        carried += [(t, self._zeros(t.tensor_type)) for t in totals]

        in_loop = [step.gradient[i] for i in (*loop.carries, *sums, *slices)]
        reads = forward_reads([*in_loop, *late_bases], loop.changing, step.places)
        early_bases = [x for x in after.bases if x not in step.late]
        self._stacks = self._forward_stacks(dict.fromkeys((*reads, *early_bases)))
        self._stacks |= {place: stack for place, stack in at_hand.items() if stack is not None}
        fixed = set(loop.inputs[loop.first_const:])
        scanned += [(r, self._stacks[r]) for r in reads if r not in fixed]
        consts = [(r, loop.node.inputs[r.attrs.index]) for r in reads if r in fixed]

        outputs = [step.gradient[i] for i in loop.carries]
        outputs += [b.add(t, step.gradient[i]) for t, i in zip(totals, sums, strict=True)]
        outputs += [step.gradient[i] for i in slices] + late_bases
        self._found: dict[int, Node] = {}
        if outputs:
            scan = self._scan(carried, scanned, consts, outputs)
            results = b.results(scan)
            self._found = dict(zip([*loop.carries, *sums, *slices], results, strict=False))
            self._stacks |= zip(late_bases, results[len(self._found):], strict=True)

    def cotangent(self, operand: int) -> Node:
        """The cotangent of operand number `operand`."""
        if operand in self._after.operands:
            return self._after.cotangent(self._b, operand, self._stacks)
        return self._found[operand]

    def _zeros(self, t: TensorType) -> Node:
        return self._b.full(0, t.dtype, t.shape)

    def _forward_stacks(self, wanted: Iterable[Node]) -> dict[Node, Node]:
        """For nodes of the body the stack of their values: a scanned operand, or a further result."""
        loop = self._loop
        stacks = {x: loop.node.inputs[i] for i,
                  x in enumerate(loop.inputs) if loop.n_carry <= i < loop.first_const}
        missing = [x for x in wanted if x not in stacks and x not in loop.inputs[loop.first_const:]]
        if missing:
            results = self._b.results(with_stacks(loop.node, missing))
            stacks |= zip(missing, results[len(loop.body.outputs):], strict=True)
        return stacks

    def _scan(self, carried: Sequence[tuple[Node, Node]], scanned: Sequence[tuple[Node, Node]],
              consts: Sequence[tuple[Node, Node]], outputs: Sequence[Node]) -> Node:
        """The scan whose body computes `outputs`, its inputs numbered in operand order."""
        pairs = [*carried, *scanned, *consts]
        numbered = _arguments(0, [inner.tensor_type for inner, _ in pairs])
        replace = {inner: n for (inner, _), n in zip(pairs, numbered, strict=True)}
        specs = tuple(InputSpec(f"a{i}", n.tensor_type) for i, n in enumerate(numbered))
        body = Graph(f"{self._loop.body.name}_vjp", specs, substitute(outputs, replace))
        a = self._loop.node.attrs
        return self._b.scan(*(outer for _, outer in pairs), body=body, n_carry=len(carried),
                            n_xs=len(scanned),
                            length=a.length, reverse=not a.reverse)
