"""Random plans: loops, branches, copies and host calls nested at random, native against reference."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import boolean, f32
from tracemill.runtime import host
from tracemill.runtime.plan import (
    Branch,
    BufferUse,
    Copy,
    Entry,
    Fill,
    Host,
    HostOperand,
    Plan,
    Repeat,
    While,
)

ROWS, N = 4, sym("N")


class Maker:
    """Grows a plan over four matrices, some flags, and a counter for each `while`."""

    def __init__(self, b: Any, seed: int) -> None:
        self.b = b
        self.random = random.Random(seed)
        x = b.input("x", ROWS, N)
        self.flags = b.input("flags", 8, dtype=boolean)
        self.limits = b.input("limits", 1)
        self.spaces = [b.temporary(ROWS, N) for _ in range(3)]
        y = b.output("y", ROWS, N)
        entries = [Copy(x, space, ROWS * N * 4) for space in self.spaces]
        entries += self.some(3, 0)
        entries.append(Copy(self.spaces[0], y, ROWS * N * 4))
        self.plan: Plan = b.plan(*entries)

    def row(self, levels: int) -> BufferUse:
        """A row of a matrix that moves with at most one of the loops around, forwards or backwards."""
        space = self.random.choice(self.spaces)
        strides = [0] * levels
        start = self.random.randrange(ROWS) * N * 4
        if levels and self.random.random() < 0.7:
            level = self.random.randrange(levels)
            forwards = self.random.random() < 0.5
            strides[level] = N * 4 if forwards else -(N * 4)
            start = 0 if forwards else (ROWS - 1) * N * 4
        return BufferUse(space.buffer, start, tuple(strides))

    def some(self, depth: int, levels: int) -> list[Entry]:
        return [self.one(depth, levels) for _ in range(self.random.randint(1, 4))]

    def one(self, depth: int, levels: int) -> Entry:
        pick = self.random.random()
        if depth and pick < 0.2:
            return Repeat(self.random.choice((0, 1, 2, ROWS)), tuple(self.some(depth - 1, levels + 1)))
        if depth and pick < 0.35:
            flag = BufferUse(self.flags.buffer, self.random.randrange(8))
            return Branch(flag, tuple(self.some(depth - 1, levels)), tuple(self.some(depth - 1, levels)))
        if depth and pick < 0.45:
            return self.counted(depth, levels)
        if pick < 0.55:
            return Copy(self.row(levels), self.row(levels), N * 4)
        if pick < 0.6:
            return Fill(self.row(levels), N * 4, np.float32(self.random.random()).tobytes())
        if pick < 0.65:
            operands = [HostOperand(self.row(levels), f32, (N,)) for _ in range(2)]
            return Host("fuzz.halve", tuple(operands))
        if pick < 0.8:
            return self.b.call("affine", self.row(levels), self.row(levels), range=N)
        return self.b.call("bump", self.row(levels), range=N, grain=self.random.choice((1, 16, 64)))

    def counted(self, depth: int, levels: int) -> Entry:
        counter, flag = self.b.temporary(1), self.b.temporary(1, dtype=boolean)
        body = (*self.some(depth - 1, levels), self.b.call("bump", counter, range=1))
        loop = While(flag, (self.b.call("below", counter, self.limits, flag, range=1),), body)
        return Repeat(1, (Fill(counter, 4), loop))


@pytest.mark.parametrize("seed", range(40))
def test_random_plans(kit, b, seed, monkeypatch):
    monkeypatch.setattr(
        host, "_functions", {"fuzz.halve": lambda x, y: np.multiply(x, np.float32(0.5), out=y)}
    )
    plan = Maker(b, seed).plan
    assert Plan.from_bytes(plan.to_bytes()) == plan
    rng = np.random.default_rng(seed)
    x, flags = rng.random((ROWS, 50), np.float32), rng.random(8) < 0.5
    kit.check(plan, lambda: [x.copy(), flags.copy(), np.full(1, seed % 4, np.float32)])
