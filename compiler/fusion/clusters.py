"""Groups of nodes under construction: where each value is computed, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ...ir.graph import Graph, InputSpec, input_node
from ...ir.node import Node
from .roles import ALIASES, OPERAND_VIEWS, Role, role


@dataclass(eq=False)
class Group:
    """Nodes that become one kernel.

    Attributes:
        members: nodes computed here; views that they read through are not counted.
        outputs: members that must be in memory.
        repeated: members evaluated more often than they have elements.
        replaced: the group that this one has become part of.
        segments: equal groups that this one consists of.
    """

    members: dict[Node, None] = field(default_factory=dict)
    outputs: dict[Node, None] = field(default_factory=dict)
    repeated: set[Node] = field(default_factory=set)
    core: Node | None = None
    reductions: list[Node] = field(default_factory=list)
    replaced: Group | None = None
    segments: tuple[Group, ...] = ()

    def add(self, node: Node, node_role: Role) -> None:
        """Make a node a member."""
        self.members[node] = None
        if node_role is Role.CORE:
            self.core = node
        elif node_role is Role.REDUCTION:
            self.reductions.append(node)


def current(group: Group) -> Group:
    """The group that a group is part of by now."""
    while group.replaced is not None:
        group = group.replaced
    return group


class Readers(NamedTuple):
    """Who needs a value: groups that can compute with it, contractions that read it from memory as an operand, and
    anything else that needs it in memory."""

    groups: dict[Group, None]
    operand: bool
    wall: bool


class Clusters:
    """A partition of a graph's computing nodes into groups.

    A view belongs to no group: it is part of every group that reads through it. One that something else needs in
    memory is, besides, the result of a group of its own.

    Args:
        inlined: nodes to treat as views although they compute, so that every reader computes them for itself.
        alone: nodes that stay out of larger groups.
    """

    def __init__(self, graph: Graph, inlined: Iterable[Node] = (), alone: Iterable[Node] = ()) -> None:
        self.alone = set(alone)
        self.graph = graph
        self.position = {n: i for i, n in enumerate(graph.nodes)}
        self.owner: dict[Node, Group] = {}
        self.required = frozenset(graph.outputs)
        views = set(inlined)
        self.roles = {n: Role.VIEW if n in views else role(n) for n in graph.nodes}
        self._views: dict[Node, Readers] = {}

    def groups(self) -> list[Group]:
        """All groups, by the position of their last member."""
        return sorted(dict.fromkeys(self.owner.values()), key=self.last)

    def last(self, group: Group) -> int:
        """Position in the graph of a group's last member."""
        return max(self.position[n] for n in group.members)

    def own(self, node: Node, group: Group) -> None:
        """Compute a node in a group."""
        group.add(node, self.roles[node])
        self.owner[node] = group

    def turn(self, node: Node) -> None:
        """Make a view a kernel of its own, which its readers read from memory."""
        self.roles[node] = Role.LOOP
        self.alone.add(node)

    def is_open(self, group: Group) -> bool:
        """Whether a group may become larger."""
        return self.alone.isdisjoint(group.members)

    # -- readers --------------------------------------------------------------------------------------------------

    def readers(self, node: Node) -> Readers:
        """Who reads a value. All nodes behind it must have been visited (see `note_view`)."""
        groups: dict[Group, None] = {}
        operand, wall = False, node in self.required
        for user in self.graph.users[node]:
            kind = self.roles[user]
            if kind is Role.VIEW:
                behind = self._views[user]
                groups |= dict.fromkeys(map(current, behind.groups))
                if user in self.owner:
                    groups[self.owner[user]] = None
                else:
                    operand |= behind.operand
                    wall |= behind.wall
            elif user in self.owner:
                groups[self.owner[user]] = None
                if kind is Role.CORE:
                    operand |= user.op.name == "dot"
                    wall |= user.op.name != "dot"
            else:
                wall = True
        return Readers(groups, operand, wall)

    def note_view(self, node: Node) -> bool:
        """Record who reads through a view; whether it must also be in memory itself."""
        readers = self._views[node] = self.readers(node)
        if node.op.name in ALIASES:
            return False
        return readers.wall or (readers.operand and node.op.name not in OPERAND_VIEWS)

    # -- bodies ---------------------------------------------------------------------------------------------------

    def computed_in(self, group: Group) -> Callable[[Node], bool]:
        """Whether a group computes a node, as against reading it from memory."""
        known: dict[Node, bool] = {}

        def computed(node: Node) -> bool:
            if node not in known:
                known[node] = self._computed(node, group, computed)
            return known[node]

        return computed

    def _computed(self, node: Node, group: Group, computed: Callable[[Node], bool]) -> bool:
        if node in group.members:
            return True
        if self.roles[node] is Role.VIEW:
            return node.op.name not in ALIASES or computed(node.inputs[0])
        return node.op.name == "constant" and not node.tensor_type.rank

    def results(self, group: Group) -> list[Node]:
        """A group's outputs in the order of its kernel's results."""
        if group.segments:
            return [o for s in group.segments for o in self.results(s)]
        return sorted(group.outputs, key=self.position.__getitem__)

    def body(self, group: Group) -> tuple[Graph, list[Node]]:
        """A group's body, and the nodes that its inputs stand for."""
        computed, operands = self.computed_in(group), self._operands(group)
        outputs = self.results(group)
        leaves: list[Node] = []
        mapped: dict[Node, Node] = {}
        stack = list(reversed(outputs))
        while stack:
            node = stack[-1]
            if node in mapped:
                stack.pop()
            elif node in operands or not computed(node):
                mapped[node] = input_node(len(leaves), node.tensor_type)
                leaves.append(node)
                stack.pop()
            else:
                missing = [i for i in node.inputs if i not in mapped]
                if missing:
                    stack.extend(reversed(missing))
                else:
                    mapped[node] = node.with_inputs(mapped[i] for i in node.inputs)
                    stack.pop()
        specs = tuple(InputSpec(f"x{k}", n.tensor_type) for k, n in enumerate(leaves))
        return Graph("body", specs, tuple(mapped[o] for o in outputs)), leaves

    def _operands(self, group: Group) -> set[Node]:
        """What a contraction reads from memory: its operands, for `dot` what its operands are views of."""
        if group.core is None:
            return set()
        found: set[Node] = set()
        stack = list(group.core.inputs)
        while stack:
            node = stack.pop()
            if group.core.op.name == "dot" and self.roles[node] is Role.VIEW and node not in self.owner:
                stack.extend(node.inputs)
            else:
                found.add(node)
        return found

    def leaves(self, group: Group) -> list[Node]:
        """The values that a group reads from memory, in order."""
        return self.body(group)[1]
