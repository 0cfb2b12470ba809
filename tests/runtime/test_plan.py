"""Plans as data: serialisation, validation, listing."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from tracemill.ir.dims import dmax, sym
from tracemill.ir.dtypes import boolean, f32, i64
from tracemill.ir.errors import InternalError, TracemillError
from tracemill.runtime.bind import BoundPlan
from tracemill.runtime.plan import (
    Branch,
    BufferSpec,
    BufferUse,
    Copy,
    Fault,
    Fill,
    Host,
    HostOperand,
    Plan,
    Repeat,
    While,
)
from tracemill.runtime.plan_format import PlanFormatError


@pytest.fixture
def rich(b) -> Plan:
    """A plan with an entry of every kind and expressions of every kind."""
    B, T = sym("B"), sym("T")
    x, _ = b.input("x", B, T), b.input("p", 16)
    c = b.constant(np.arange(6, dtype=np.float32).tobytes(), 6)
    flag = b.temporary(1, dtype=boolean)
    t = b.temporary(B, T)
    y, q = b.output("y", B, T), b.output("q", 16, replaces=1)
    host = Host(
        "solve",
        (HostOperand(x, f32, (B, T)), HostOperand(y, f32, (B, T))),
        attrs=(("lower", True), ("axes", (0, (1, 2))), ("name", "µ"), ("tol", 0.5)),
        faults=(Fault(1, "solve"),),
    )
    return b.plan(
        b.call(
            "take",
            x,
            c,
            t,
            range=(B * T + 7) // 8,
            extents=(B, T % 3, dmax(B, T)),
            grain=32,
            scratch=B * 64,
            fallible=True,
            waits=False,
            work=B * T,
            node="emb",
            faults=(Fault(3, "gather", 2),),
        ),
        host,
        Repeat(
            B,
            (
                Repeat(
                    T - 1, (Copy(BufferUse(x.buffer, 4, (T * 4, 4)), BufferUse(t.buffer, 0, (T * 4, 4)), 4),)
                ),
            ),
            "rnn",
        ),
        While(flag, (b.call("below", x, x, flag, range=1),), (Fill(t, B * T * 4, b"\1\2"),)),
        Branch(flag, (b.call("bump", q, range=16),), (Fill(y, B * T * 4),)),
    )


def test_derived_sizes(rich):
    B, T = sym("B"), sym("T")
    plan = replace(rich, lets=(("at0", B * T + 64), ("at1", sym("at0") * 2)), arena=sym("at1") * 64)
    plan.validate()
    assert Plan.from_bytes(plan.to_bytes()) == plan
    assert plan.with_lets({"B": 2, "T": 3}) == {"B": 2, "T": 3, "at0": 70, "at1": 140}
    assert "  let at1 = 2*at0\n" in plan.to_text()
    for lets in ((("at1", sym("at0")), ("at0", B)), (("B", T),)):
        with pytest.raises(InternalError, match="is out of order"):
            replace(rich, lets=lets).validate()


def test_round_trip(rich):
    rich.validate()
    data = rich.to_bytes()
    again = Plan.from_bytes(data)
    assert again == rich
    assert again.to_bytes() == data
    assert again.constants[0].data == rich.constants[0].data
    assert Plan.from_bytes(memoryview(data)) == rich


def test_large_constants_can_be_stored_outside(b):
    c, y = b.constant(bytes(range(256)) * 1000, 64000), b.output("y", 64000)
    plan = b.plan(Copy(c, y, 256000))
    store: dict[str, bytes] = {}
    data = plan.to_bytes(store=store.__setitem__)
    assert len(data) < 2000 and list(store.values()) == [plan.constants[0].data]
    assert Plan.from_bytes(data, fetch=store.__getitem__) == plan
    with pytest.raises(PlanFormatError, match="stored outside"):
        Plan.from_bytes(data)
    with pytest.raises(PlanFormatError, match="other bytes"):
        Plan.from_bytes(data, fetch=lambda digest: b"x" * 256000)
    assert Plan.from_bytes(plan.to_bytes()) == plan


def test_damaged_plans_are_refused(rich):
    data = rich.to_bytes()
    for cut in (0, 5, 23, 24, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(PlanFormatError):
            Plan.from_bytes(data[:cut])
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 200):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        try:
            assert Plan.from_bytes(bytes(broken)) == rich  # only bytes that mean nothing
        except TracemillError:
            continue
    with pytest.raises(PlanFormatError, match="not a plan"):
        Plan.from_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(PlanFormatError, match="has format 01, this version reads 02"):
        Plan.from_bytes(b"TMPLAN01" + data[8:])


def _reseal(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<8sQII", b"TMPLAN02", len(text), zlib.crc32(text), 0) + text


def test_forged_plans_are_refused(b):
    """A right checksum over wrong content: every field replaced by things it must not be."""
    x, y = b.input("x", sym("B")), b.output("y", sym("B"))
    data = b.plan(b.call("affine", x, y, range=sym("B"))).to_bytes()
    length = struct.unpack_from("<Q", data, 8)[0]
    header = json.loads(data[24 : 24 + length])
    Plan.from_bytes(_reseal(header))

    def forge(value, path=()):
        if isinstance(value, (dict, list)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in items:
                yield from forge(inner, (*path, key))
        for wrong in (None, "text", -1, 1 << 70, 1.5, [], [99], [[1, 2], 3], {}, True):
            yield path, wrong

    for path, wrong in forge(header):
        copy = json.loads(json.dumps(header))
        where = copy
        if not path:
            continue
        for key in path[:-1]:
            where = where[key]
        where[path[-1]] = wrong
        try:
            Plan.from_bytes(_reseal(copy))
        except TracemillError:
            continue


def test_listing(rich):
    assert (
        rich.to_text()
        == """\
plan test
  size B = x.shape[0]
  size T = x.shape[1]
  input in0 x: f32[B,T]
  input in1 p: f32[16]
  output out0 y: f32[B,T]
  output out1 q: f32[16] replaces in1
  constant const0: 24 bytes
  arena 64*((4*B*T+63)//64)+64 bytes
  buffer b3: bool[1] at 0, 1 bytes
  buffer b4: f32[B,T] at 64, 4*B*T bytes
entries
   0   take[(B*T+7)//8](in0, const0) -> b4 extents(B, T%3, max(B,T)) grain 32 scratch 64*B fallible  # emb
   1 | host solve(in0) -> out0 lower=True axes=(0, (1, 2)) name=µ tol=0.5
   2   repeat B times  # rnn
   3     repeat T-1 times
   4 |     copy in0+4+4*T*i0+4*i1 -> b4+4*T*i0+4*i1, 4 bytes
   5   while b3
   6 |   below[1](in0, in0) -> b3
       do
   7 |   fill b4, 4*B*T bytes with 0x0102
   8 | if b3
   9 |   bump[16]() -> out1
       else
  10 |   fill out0, 4*B*T bytes with 0x00
"""
    )


def test_rules(b):
    B = sym("B")
    x, y, t = b.input("x", B), b.output("y", B), b.temporary(B)
    good = b.plan(b.call("affine", x, y, range=B))
    good.validate()
    n = len(good.buffers)

    def broken(message, *entries, **changes):
        plan = replace(good, **({"entries": entries} if entries else {}), **changes)
        with pytest.raises(InternalError, match=message):
            plan.validate()

    broken("uses a buffer that does not exist", b.call("affine", x, BufferUse(n), range=B))
    broken("more strides than loops", b.call("affine", x, BufferUse(y.buffer, 0, (4,)), range=B))
    broken("undeclared size C", b.call("affine", x, y, range=sym("C")))
    broken("declared twice", sizes=good.sizes * 2)
    broken("writes to input 0", b.call("affine", y, x, range=B))
    broken("has grain 0", b.call("affine", x, y, range=B, grain=0))
    broken("pattern of 3 bytes", Fill(y, 3, b"abc"))
    broken("predicate of dtype f32", Branch(t, (), ()))
    broken("there is no constant 0", buffers=(*good.buffers, BufferSpec("constant", 0, 0, 4, f32, (1,))))
    broken("unknown kind 'heap'", buffers=(BufferSpec("heap", 0, 0, 4, f32, (1,)),))  # type: ignore[arg-type]
    broken("replaces an input that does not exist", outputs=(replace(good.outputs[0], replaces=3),))
    broken("has another type", outputs=(replace(good.outputs[0], replaces=0, dtype=i64),))
    broken("two outputs replace one input", outputs=(replace(good.outputs[0], replaces=0),) * 2)
    deep = b.call("affine", x, y, range=B)
    for _ in range(9):
        deep = Repeat(1, (deep,))
    broken("nested more than 8 deep", deep)


def test_nothing_may_fail_after_a_donated_input_was_written(b):
    p, q, y = b.input("p", 8), b.output("q", 8, replaces=0), b.output("y", 8)
    write = b.call("bump", q, range=8)
    risky = b.call("take", y, range=8, fallible=True)
    b.plan(risky, write).validate()
    b.plan(Repeat(2, (risky,)), Repeat(2, (write,))).validate()
    for entries in (
        (write, risky),
        (Repeat(2, (risky, write)),),
        (Repeat(2, (write,)), risky),
        (b.call("bump", p, range=8), risky),
    ):
        with pytest.raises(InternalError, match="may fail after a donated input was written"):
            b.plan(*entries).validate()


def test_reaching_outside_a_buffer_is_found_when_sizes_are_bound(b):
    B = sym("B")
    x, y = b.input("x", 4, B), b.output("y", 4, B)
    row = B * 4

    def bind(count, start=0, step=row):
        plan = b.plan(
            Repeat(
                count, (Copy(BufferUse(x.buffer, start, (step,)), BufferUse(y.buffer, start, (step,)), row),)
            )
        )
        plan.validate()
        return BoundPlan(plan, {"B": 5}, 2, {}, [])

    bind(4)
    bind(4, 3 * row, -row)
    bind(0, 100 * row)
    for bad in ((5,), (4, row), (4, 2 * row, -row)):
        with pytest.raises(InternalError, match="invalid plan: copy reaches bytes"):
            bind(*bad)
    b.buffers.append(BufferSpec("arena", 0, 0, B, f32, (B,)))
    with pytest.raises(InternalError, match=f"buffer {len(b.buffers) - 1} is outside its memory"):
        bind(4)
