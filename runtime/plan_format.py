"""Plans as bytes: a JSON header, every expression by number, then the constants. Nothing is ever executed.

8 bytes   b"TMPLAN" + format (two digits)
8 bytes   length of the header, little endian
4 bytes   CRC-32 of all that follows
4 bytes   zero
header    JSON, UTF-8, padded with blanks so that the constants start 64-byte aligned
constants each padded to 64 bytes
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from ..ir.dims import Compound, Dim, Monomial, SymDim
from ..ir.dtypes import dtype
from ..ir.errors import TracemillError
from .plan import (
    FORMAT,
    Branch,
    BufferSpec,
    BufferUse,
    Constant,
    Copy,
    Entry,
    Fault,
    Fill,
    Host,
    HostOperand,
    KernelCall,
    Plan,
    PlanInput,
    PlanOutput,
    Repeat,
    SizeSource,
    While,
)

_MAGIC = b"TMPLAN%02d" % FORMAT
_HEAD = struct.Struct("<8sQII")
_ALIGN = 64

Store = Callable[[str, bytes], None]
Fetch = Callable[[str], bytes]


class PlanFormatError(TracemillError, ValueError):
    """Bytes that are not a plan of this version, or a damaged one."""


def encode(plan: Plan, *, store: Store | None = None, inline_limit: int = 1 << 16) -> bytes:
    """A plan as bytes; equal plans give equal bytes.

    Args:
        store: called with (digest, bytes) for every constant longer than `inline_limit`, which then is not
            part of the result; without it all constants are.
    """
    writer = _Writer()
    constants: list[Any] = []
    blob = bytearray()
    for constant in plan.constants:
        outside = store is not None and len(constant.data) > inline_limit
        constants.append([len(constant.data), constant.digest if outside else ""])
        if store is not None and outside:
            store(constant.digest, constant.data)
        else:
            blob += constant.data + bytes(-len(constant.data) % _ALIGN)
    body = {
        "name": plan.name,
        "sizes": [[s.name, s.input, s.axis, s.scale, s.offset] for s in plan.sizes],
        "inputs": [[i.name, i.dtype.name, writer.dims(i.shape)] for i in plan.inputs],
        "outputs": [[o.name, o.dtype.name, writer.dims(o.shape), o.replaces] for o in plan.outputs],
        "buffers": [
            [b.kind, b.index, writer.dim(b.offset), writer.dim(b.nbytes), b.dtype.name, writer.dims(b.shape)]
            for b in plan.buffers
        ],
        "constants": constants,
        "entries": writer.entries(plan.entries),
        "arena": writer.dim(plan.arena),
        "attrs": plan.attrs,
        "lets": [[name, writer.dim(d)] for name, d in plan.lets],
        "dims": writer.table,
    }
    header = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    header += b" " * (-(_HEAD.size + len(header)) % _ALIGN)
    rest = header + bytes(blob)
    return _HEAD.pack(_MAGIC, len(header), zlib.crc32(rest), 0) + rest


class _Writer:
    """Numbers the symbolic expressions: an integer is written as itself, an expression as `[number]`."""

    def __init__(self) -> None:
        self.table: list[Any] = []
        self.numbers: dict[SymDim, int] = {}

    def dim(self, dim: Dim) -> Any:
        if not isinstance(dim, SymDim):
            return int(dim)
        number = self.numbers.get(dim)
        if number is None:
            terms = [[coeff, *(self._atom(atom) for atom in mono)] for mono, coeff in dim.terms]
            number = self.numbers[dim] = len(self.table)
            self.table.append(terms)
        return [number]

    def _atom(self, atom: Any) -> Any:
        return [atom.op, self.dim(atom.left), self.dim(atom.right)] if isinstance(atom, Compound) else atom

    def dims(self, dims: tuple[Dim, ...]) -> list[Any]:
        return [self.dim(d) for d in dims]

    def use(self, use: BufferUse) -> list[Any]:
        return [use.buffer, self.dim(use.offset), *self.dims(use.strides)]

    def entries(self, entries: tuple[Entry, ...]) -> list[Any]:
        return [self.entry(entry) for entry in entries]

    def entry(self, e: Entry) -> list[Any]:
        match e:
            case KernelCall():
                return [
                    "kernel",
                    e.kernel,
                    [self.use(u) for u in e.buffers],
                    self.dims(e.extents),
                    self.dim(e.range),
                    e.outputs,
                    e.grain,
                    self.dim(e.scratch),
                    int(e.fallible),
                    int(e.waits),
                    self.dim(e.work),
                    e.node,
                    _faults(e.faults),
                    list(e.links),
                    self.dim(e.rows),
                ]
            case Copy():
                return [
                    "copy",
                    self.use(e.source),
                    self.use(e.target),
                    self.dim(e.nbytes),
                    int(e.waits),
                    e.node,
                ]
            case Fill():
                return ["fill", self.use(e.target), self.dim(e.nbytes), e.pattern.hex(), int(e.waits), e.node]
            case Host():
                operands = [[self.use(o.use), o.dtype.name, self.dims(o.shape)] for o in e.operands]
                attrs = [[name, value] for name, value in e.attrs]
                return [
                    "host",
                    e.name,
                    operands,
                    e.outputs,
                    attrs,
                    int(e.fallible),
                    e.node,
                    _faults(e.faults),
                ]
            case Repeat():
                return ["repeat", self.dim(e.count), self.entries(e.body), e.node, int(e.waits)]
            case While():
                return [
                    "while",
                    self.use(e.predicate),
                    self.entries(e.condition),
                    self.entries(e.body),
                    e.node,
                ]
            case Branch():
                return [
                    "branch",
                    self.use(e.predicate),
                    self.entries(e.then),
                    self.entries(e.otherwise),
                    e.node,
                ]


def _faults(faults: tuple[Fault, ...]) -> list[Any]:
    return [[f.node, f.operator, f.site] for f in faults]


def decode(data: bytes | memoryview, *, fetch: Fetch | None = None) -> Plan:
    """The plan of bytes that `encode` made.

    Args:
        fetch: gives the bytes of a constant that was stored outside, by digest.

    Raises:
        PlanFormatError: other data, another version, damage, or a constant that cannot be had.
    """
    if len(data) < _HEAD.size:
        raise PlanFormatError("the plan is cut off")
    magic, length, checksum, _ = _HEAD.unpack_from(data)
    if magic[:6] != _MAGIC[:6]:
        raise PlanFormatError("this is not a plan")
    if magic != _MAGIC:
        raise PlanFormatError(
            f"the plan has format {magic[6:].decode('latin-1')}, this version reads {FORMAT:02d}"
        )
    rest = memoryview(data)[_HEAD.size :]
    if length > len(rest) or zlib.crc32(rest) != checksum:
        raise PlanFormatError("the plan is cut off or damaged")
    try:
        body = json.loads(bytes(rest[:length]))
        plan = _Reader(body["dims"]).plan(body, rest[length:], fetch)
        plan.validate()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, TracemillError):
            raise
        raise PlanFormatError(f"the plan is malformed: {type(error).__name__}: {error}") from error
    return plan


class _Reader:
    """Rebuilds expressions from the table; each refers to earlier ones only."""

    def __init__(self, table: list[Any]) -> None:
        self.table: list[SymDim] = []
        for terms in table:
            self.table.append(SymDim(tuple(self._term(term) for term in terms)))

    def _term(self, term: Any) -> tuple[Monomial, int]:
        return tuple(self._atom(a) for a in term[1:]), _integer(term[0])

    def _atom(self, atom: Any) -> Any:
        if isinstance(atom, str):
            return atom
        op, left, right = atom
        if op not in ("//", "%", "max"):
            raise ValueError(f"unknown operation {op!r} in an expression")
        return Compound(op, self.dim(left), self.dim(right))

    def dim(self, value: Any) -> Dim:
        if isinstance(value, list):
            (number,) = value
            if _integer(number) < 0:
                raise ValueError("negative expression number")
            return self.table[number]
        return _integer(value)

    def dims(self, values: Any) -> tuple[Dim, ...]:
        return tuple(self.dim(value) for value in values)

    def use(self, value: Any) -> BufferUse:
        return BufferUse(_integer(value[0]), self.dim(value[1]), self.dims(value[2:]))

    def entries(self, values: Any) -> tuple[Entry, ...]:
        return tuple(self.entry(value) for value in values)

    def entry(self, value: Any) -> Entry:
        match value:
            case [
                "kernel",
                key,
                buffers,
                extents,
                span,
                outputs,
                grain,
                scratch,
                fallible,
                waits,
                work,
                node,
                faults,
                links,
                rows,
            ]:
                return KernelCall(
                    _text(key),
                    tuple(self.use(u) for u in buffers),
                    self.dims(extents),
                    self.dim(span),
                    _integer(outputs),
                    _integer(grain),
                    self.dim(scratch),
                    bool(fallible),
                    bool(waits),
                    self.dim(work),
                    _text(node),
                    _read_faults(faults),
                    tuple(_text(key) for key in links),
                    self.dim(rows),
                )
            case ["copy", source, target, nbytes, waits, node]:
                return Copy(self.use(source), self.use(target), self.dim(nbytes), bool(waits), _text(node))
            case ["fill", target, nbytes, pattern, waits, node]:
                return Fill(
                    self.use(target), self.dim(nbytes), bytes.fromhex(pattern), bool(waits), _text(node)
                )
            case ["host", name, operands, outputs, attrs, fallible, node, faults]:
                read = tuple(HostOperand(self.use(u), dtype(d), self.dims(s)) for u, d, s in operands)
                pairs = tuple((_text(k), _frozen(v)) for k, v in attrs)
                return Host(
                    _text(name),
                    read,
                    _integer(outputs),
                    pairs,
                    bool(fallible),
                    _text(node),
                    _read_faults(faults),
                )
            case ["repeat", count, body, node, waits]:
                return Repeat(self.dim(count), self.entries(body), _text(node), bool(waits))
            case ["while", predicate, condition, body, node]:
                return While(self.use(predicate), self.entries(condition), self.entries(body), _text(node))
            case ["branch", predicate, then, otherwise, node]:
                return Branch(self.use(predicate), self.entries(then), self.entries(otherwise), _text(node))
        raise ValueError("unknown entry")

    def plan(self, body: Any, blob: memoryview, fetch: Fetch | None) -> Plan:
        return Plan(
            name=_text(body["name"]),
            sizes=tuple(
                SizeSource(_text(n), _integer(i), _integer(a), _integer(s), _integer(o))
                for n, i, a, s, o in body["sizes"]
            ),
            inputs=tuple(PlanInput(_text(n), dtype(d), self.dims(s)) for n, d, s in body["inputs"]),
            outputs=tuple(
                PlanOutput(_text(n), dtype(d), self.dims(s), _integer(r)) for n, d, s, r in body["outputs"]
            ),
            buffers=tuple(
                BufferSpec(_text(k), _integer(i), self.dim(o), self.dim(n), dtype(d), self.dims(s))
                for k, i, o, n, d, s in body["buffers"]
            ),
            entries=self.entries(body["entries"]),
            constants=_read_constants(body["constants"], blob, fetch),
            arena=self.dim(body["arena"]),
            attrs=dict(body["attrs"]),
            lets=tuple((str(name), self.dim(d)) for name, d in body["lets"]),
        )


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    return value


def _text(value: Any) -> Any:
    if type(value) is not str:
        raise ValueError(f"{value!r} is not text")
    return value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _read_faults(values: Any) -> tuple[Fault, ...]:
    return tuple(Fault(_integer(n), _text(o), _integer(s)) for n, o, s in values)


def _read_constants(table: Any, blob: memoryview, fetch: Fetch | None) -> tuple[Constant, ...]:
    constants: list[Constant] = []
    at = 0
    for length, digest in table:
        if digest:
            if fetch is None:
                raise PlanFormatError(f"constant {digest} is stored outside the plan")
            constant = Constant(fetch(digest))
            if constant.digest != digest:
                raise PlanFormatError(f"constant {digest} has other bytes than when the plan was made")
        else:
            constant = Constant(bytes(blob[at : at + _integer(length)]))
            at += length + -length % _ALIGN
        if len(constant.data) != length:
            raise PlanFormatError("a constant is cut off")
        constants.append(constant)
    return tuple(constants)
