"""Programs: traced graphs made runnable, shared between sizes and between values of the script's numbers.

A `Template` is one compiled graph. Python numbers of the script are compiled in at first; when one of them changes,
all of them become inputs, once and for all. A first size compiles as it is; a second one makes a template in named
sizes (`symbolise`), which serves every later size. A `Program` is a template at the sizes of one exact trace.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.attrs import Constant
from ...ir.dtypes import DType
from ...ir.graph import Graph, InputSpec
from ...ir.node import Node, postorder
from . import engine, stats
from .cell import Array, Cell
from .symbolise import Fit, dissect, fit, rebuild, symbolic
from .trace import NUMBER, Hyper

_MAX_SAMPLES = 6
_MAX_TEMPLATES = 24
_MAX_FAMILIES = 4096


@dataclass
class Signature:
    """What a flush asks for: output nodes over numbered leaves, and what the leaves are."""

    outputs: tuple[Node, ...]
    donations: tuple[int | None, ...]  # leaf whose memory an output takes
    values: tuple[Any, ...]
    owners: tuple[Any, ...]


class Template:
    """One graph and its runner(s).

    Attributes:
        outputs: nodes over the trace's leaf numbers, with named sizes in their dims if `found` says so.
        order: leaf indices of the arrays and numbers that the graph reads.
        baked: (leaf index, value) of the script's numbers that are compiled in, or None once they are inputs.
        typical: the named sizes of the first sample.
    """

    def __init__(self, signature: Signature, outputs: tuple[Node, ...], found: Fit | None) -> None:
        self.outputs = outputs
        self.donations = signature.donations
        self.found = found
        self.inputs = sorted((n for n in postorder(outputs) if n.op.name == "input"), key=lambda n: n.attrs.index)
        used = {n.attrs.index for n in self.inputs}
        self.owners = {i: signature.owners[i] for i in used}
        self.numbers = [i for i in sorted(used) if self.owners[i] == NUMBER]
        self.baked: list[tuple[int, Any]] | None = [(i, signature.values[i]) for i in self.numbers]
        self.runner: engine.Runner | None = None
        self.runs = 0
        self.typical: Mapping[str, int] | None = None
        self.graph: Graph
        self.order: list[int]
        self.scalars: list[tuple[int, np.dtype[Any]]]
        self._idle: list[list[Array]]
        self._build(signature.values)

    def run(self, values: Sequence[Any], sizes: engine.Sizes) -> list[Array]:
        """The outputs for the trace's leaf values."""
        if self.baked:
            for index, value in self.baked:
                if not same_number(values[index], value):
                    self.baked = None
                    self.runner = None
                    self._build(values)
                    break
        inputs = [values[i] for i in self.order]
        idle = self._idle
        numbers = idle.pop() if idle else [np.empty((), dtype) for _, dtype in self.scalars]
        for (at, _), number in zip(self.scalars, numbers, strict=True):
            number[()] = inputs[at]
            inputs[at] = number  # the same memory as at the last run: the runner has its address
        self.runs += 1
        results = (self.runner or self._load(inputs)).run(inputs, sizes)
        idle.append(numbers)
        return results

    def _load(self, inputs: Sequence[Array]) -> engine.Runner:
        if self.runs == 1 and engine.exact_only(self.graph):
            stats.interpreted += 1
            return engine.Interpreted(self.graph)
        stats.compiled += 1
        self.runner = engine.load(self.graph, inputs, self.typical)
        return self.runner

    def _build(self, values: Sequence[Any]) -> None:
        baked = {index for index, _ in self.baked} if self.baked is not None else set()
        specs: list[InputSpec] = []
        leaves: dict[Node, Node] = {}
        names: set[str] = set()
        self.order, self.scalars, self._idle = [], [], []
        position: dict[int, int] = {}
        for n in self.inputs:
            index, owner = n.attrs.index, self.owners[n.attrs.index]
            if index in baked:
                leaves[n] = Node.make("constant", (), {"value": Constant(_element(values[index], n.dtype))})
                continue
            leaves[n] = Node.make("input", (), {"index": len(specs), "type": n.type})
            position[index] = len(specs)
            self.order.append(index)
            scalar = owner == NUMBER or isinstance(owner, Hyper)
            if scalar:
                self.scalars.append((len(specs), n.dtype.numpy))
            role = "hyper" if scalar else _role(owner)
            name = _unique(_base_name(owner, len(specs)), names)
            default = _element(values[index], n.dtype).item() if scalar else None
            specs.append(InputSpec(name, n.tensor_type, role, default))
        outputs = rebuild(self.outputs, leaves.get)
        donations = tuple([None if d is None else position.get(d) for d in self.donations])
        output_names = _output_names(specs, donations)
        free = tuple(self.found.free) if self.found is not None else ()
        self.graph = Graph(_graph_name(outputs), tuple(specs), outputs, output_names, donations, free)


def _element(value: Any, dtype: DType) -> Array:
    """A number of the script as a rank-0 array."""
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype.numpy)


def same_number(a: Any, b: Any) -> bool:
    """Equal as a compiled-in constant: value, kind and sign of zero."""
    if a.__class__ is not b.__class__ or a != b:
        return a.__class__ is b.__class__ is float and a != a and b != b
    return bool(a) or a.__class__ is not float or math.copysign(1.0, a) == math.copysign(1.0, b)


def _role(owner: Any) -> str:
    if owner.__class__ is not Cell:
        return "batch"
    if owner.role == "batch" and owner.leaf is not None:
        return "parameter"
    return str(owner.role)


_WORD = re.compile(r"[^\w.]+")


def _base_name(owner: Any, position: int) -> str:
    name = owner.name if isinstance(owner, (Cell, Hyper)) else None
    if name:
        name = _WORD.sub("_", name)
        return name if name[0].isalpha() or name[0] == "_" else "_" + name
    return f"{'c' if owner == NUMBER else 'p' if _role(owner) == 'parameter' else 'x'}{position}"


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


def _output_names(specs: Sequence[InputSpec], donations: Sequence[int | None]) -> tuple[str, ...]:
    taken: set[str] = set()
    return tuple([_unique(f"out{i}" if d is None else specs[d].name, taken) for i, d in enumerate(donations)])


def _graph_name(outputs: Sequence[Node]) -> str:
    ops = {n.op.name for n in postorder(outputs)}
    kind = "step" if "update" in ops else "gradients" if "gradient" in ops else "compute"
    _counts[kind] = _counts.get(kind, 0) + 1
    return kind if _counts[kind] == 1 else f"{kind}{_counts[kind]}"


_counts: dict[str, int] = {}


class Program:
    """A template at the sizes of one exact trace."""

    __slots__ = ("_ordered", "_runner", "sizes", "template")

    def __init__(self, template: Template, sizes: dict[str, int] | None) -> None:
        self.template, self.sizes = template, sizes
        self._runner: engine.Runner | None = None
        self._ordered: engine.Sizes = None  # the sizes as `_runner` likes them best

    def run(self, values: Sequence[Any]) -> list[Array]:
        """The outputs for the trace's leaf values."""
        template = self.template
        if self.sizes is None:
            return template.run(values, None)
        runner = template.runner
        if runner is None:
            return template.run(values, self.sizes)
        if runner is not self._runner:
            self._runner, self._ordered = runner, runner.ordered(self.sizes)
        return template.run(values, self._ordered)


@dataclass
class _Family:
    """All that is known of one skeleton."""

    samples: list[tuple[int, ...]] = field(default_factory=list)
    exact: dict[tuple[int, ...], Template] = field(default_factory=dict)
    templates: list[Template] = field(default_factory=list)


_families: dict[Any, _Family] = {}


def find_program(signature: Signature) -> Program:
    """The program of a trace that no key matches: an existing template at other sizes, or a new one."""
    skeleton, vector, n_leaf = dissect(signature.outputs)
    owners = tuple([o if o == NUMBER or isinstance(o, Hyper) else None for o in signature.owners])
    key = (skeleton, signature.donations, owners)
    family = _families.get(key)
    if family is None:
        if len(_families) >= _MAX_FAMILIES:
            del _families[next(iter(_families))]
        family = _families[key] = _Family()
    known = family.exact.get(vector)
    if known is not None:
        return Program(known, None)
    for template in family.templates:
        assert template.found is not None
        sizes = template.found.bind(vector)
        if sizes is not None:
            return Program(template, sizes)
    family.samples.append(vector)
    del family.samples[:-_MAX_SAMPLES]
    if len(family.samples) > 1 and len(family.templates) < _MAX_TEMPLATES:
        made = _generalise(signature, family, n_leaf)
        if made is not None:
            return made
    template = family.exact[vector] = Template(signature, signature.outputs, None)
    return Program(template, None)


def _generalise(signature: Signature, family: _Family, n_leaf: int) -> Program | None:
    """A template in named sizes that explains the samples seen so far."""
    for relate in ("products", "lines", "none"):
        found = fit(family.samples, n_leaf, relate)
        outputs = symbolic(signature.outputs, found)
        if outputs is None:
            continue
        template = Template(signature, outputs, found)
        template.typical = found.bind(family.samples[0])
        family.templates.insert(0, template)
        sizes = found.bind(family.samples[-1])
        assert sizes is not None
        earlier = next(iter(family.exact.values()), None)
        if earlier is not None and _numbers_differ(earlier, signature.values):
            template.baked = None
            template._build(signature.values)
        return Program(template, sizes)
    return None


def _numbers_differ(earlier: Template, values: Sequence[Any]) -> bool:
    return earlier.baked is None or any(not same_number(values[i], v) for i, v in earlier.baked)
