"""Groups around attentions: the views that lead to their operands, and those that their results go through.

Heads that are slices of one projection are read where they lie, the result is written as the next projection reads it,
and the cotangents of queries, keys and values go into their parts of one tensor.
"""

from __future__ import annotations

from ...ir.build import Builder
from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from ..lower.attention import ATTENTION, OPERATORS
from ..lower.strided import source_of, targets_of
from ..passes.rewriting import substitute

_VIEWS = frozenset({"permute", "reshape"})


def attention_groups(graph: Graph) -> Graph:
    """The graph with every attention in a `fused` node of its own (those inside of control flow are left)."""
    cores = [n for n in graph.nodes if n.op.name in OPERATORS]
    return graph.with_outputs(_Grouping(graph, cores).run()) if cores else graph


class _Grouping:
    """Rebuilds a graph from its outputs.

    Attributes:
        finals: for each core the nodes that its group writes: its results, or where views take them.
        core_of: the core that each of those nodes, and each result, comes from.
    """

    def __init__(self, graph: Graph, cores: list[Node]) -> None:
        self.graph = graph
        self.required = frozenset(graph.outputs)
        self.results: dict[Node, dict[int, Node]] = {core: {} for core in cores}
        for node in graph.nodes:
            if node.op.name == "result" and node.inputs[0] in self.results:
                self.results[node.inputs[0]][node.attrs.index] = node
        self.finals = {core: self._finals(core) for core in cores}
        self.core_of = {n: core for core in cores for n in (*self.finals[core], *self.results[core].values())}
        self.mapped: dict[Node, Node] = {}

    # -- what a group writes --------------------------------------------------------------------------------------

    def _finals(self, core: Node) -> list[Node]:
        results = [self.results[core].get(i) or Builder(core.place).result(core, index=i)
                   for i in range(len(core.result_types))]
        if core.op.name == "attention":
            return [self._end(results[0]), results[1]]
        ends = [self._end(r) for r in results]
        whole = self._joined(ends)
        return ends if whole is None else [self._end(whole)]

    def _end(self, node: Node) -> Node:
        """Where the views that alone read a value (attentions aside, which read through any) take it."""
        while node not in self.required:
            users = [u for u in self.graph.users.get(node, ()) if u.op.name not in OPERATORS]
            if len(users) != 1 or users[0].op.name not in _VIEWS or targets_of(users[0]) is None:
                break
            node = users[0]
        return node

    def _joined(self, ends: list[Node]) -> Node | None:
        """The concatenation that consists of just these values, none of which is read elsewhere."""
        users = {u for end in ends for u in self.graph.users.get(end, ())}
        if len(users) != 1 or self.required & set(ends):
            return None
        (user,) = users
        return user if user.op.name == "concat" and sorted(map(id, user.inputs)) == sorted(map(id, ends)) else None

    # -- rebuilding -----------------------------------------------------------------------------------------------

    def run(self) -> list[Node]:
        """The new outputs."""
        stack = list(reversed(self.graph.outputs))
        while stack:
            node = stack[-1]
            core = self.core_of.get(node)
            missing = [i for i in (core or node).inputs if i not in self.mapped]
            if node in self.mapped or not missing:
                stack.pop()
                if node not in self.mapped:
                    self._make(node, core)
            else:
                stack.extend(reversed(missing))
        return [self.mapped[o] for o in self.graph.outputs]

    def _make(self, node: Node, core: Node | None) -> None:
        if core is None:
            self.mapped[node] = node.with_inputs(self.mapped[i] for i in node.inputs)
            return
        for final, value in zip(self.finals[core], self._group(core), strict=True):
            self.mapped[final] = value
        for result in self.results[core].values():
            if result not in self.mapped:
                self._view_back(result)

    def _group(self, core: Node) -> list[Node]:
        """The fused node's results, in the order of the core's finals."""
        leaves: dict[Node, Node] = {}
        operands = [self.mapped[i] for i in core.inputs]
        for x in operands:
            base, _ = source_of(x)
            leaves.setdefault(base, input_node(len(leaves), base.tensor_type))
        inner = Node.make(core.op, substitute(operands, leaves), core.attrs, core.place)
        outputs = substitute(self.finals[core], {core: inner})
        specs = tuple(InputSpec(f"x{k}", n.tensor_type) for k, n in enumerate(leaves))
        body = Graph("body", specs, outputs)
        fused = Node.make("fused", tuple(leaves), {"body": body, "kind": ATTENTION}, core.place)
        return [fused] if len(outputs) == 1 else list(Builder(core.place).results(fused))

    def _view_back(self, result: Node) -> None:
        """A result as a view of where its group writes it, for other attentions to read."""
        path = [result]
        while path[-1] not in self.mapped:
            path.append(next(u for u in self.graph.users[path[-1]] if u.op.name not in OPERATORS))
            if path[-1].op.name == "concat":
                return  # nothing but the concatenation reads it
        b, value = Builder(result.place), self.mapped[path[-1]]
        for view, before in zip(reversed(path[1:]), reversed(path[:-1]), strict=True):
            if view.op.name == "permute":
                dims = view.attrs.dims
                value = b.permute(value, dims=tuple(sorted(range(len(dims)), key=lambda i: dims[i])))
            else:
                value = b.reshape(value, shape=before.shape)
        self.mapped[result] = value
