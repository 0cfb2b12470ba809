"""Plans run: native and reference runner agree to the bit for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tracemill.ir.dims import sym
from tracemill.ir.dtypes import boolean, i64
from tracemill.ir.errors import (
    DTypeError,
    IndexRangeError,
    InternalError,
    KernelError,
    Location,
    ShapeError,
    TracemillError,
)
from tracemill.runtime import host, workers
from tracemill.runtime.bind import shares
from tracemill.runtime.plan import (
    Branch,
    BufferUse,
    Copy,
    Fault,
    Fill,
    Host,
    HostOperand,
    PlanInput,
    Repeat,
    SizeSource,
    While,
    find_sizes,
)
from tracemill.runtime.profile import Profile


def rising(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * np.float32(0.37)) % 5


def test_chain_of_kernels_with_barriers(kit, b):
    n = 1003
    x, t, u, y = b.input("x", n), b.temporary(n), b.temporary(n), b.output("y", n)
    plan = b.plan(
        b.call("affine", x, t, range=n, waits=False),
        b.call("mirror", t, u, range=n, extents=(n,)),
        b.call("mirror", u, y, range=n, extents=(n,)),
    )
    (got,) = kit.check(plan, lambda: [rising(n)])
    t = rising(n) * np.float32(2) + np.float32(1)
    for _ in range(2):
        t = np.float32(0.5) * t + t[::-1]
    np.testing.assert_array_equal(got, t)


def test_kernels_of_equal_shares_need_no_barrier(kit, b):
    n = 500
    x, t, y = b.input("x", n), b.temporary(n), b.output("y", n)
    plan = b.plan(
        b.call("affine", x, t, range=n, grain=16, waits=False),
        b.call("affine", t, y, range=n, grain=16, waits=False),
    )
    (got,) = kit.check(plan, lambda: [rising(n)])
    np.testing.assert_array_equal(
        got, (rising(n) * np.float32(2) + np.float32(1)) * np.float32(2) + np.float32(1)
    )


def test_scratch_is_private_to_each_worker(kit, b):
    x, y = b.input("x", 64, 33), b.output("y", 64)
    plan = b.plan(b.call("rowsum", x, y, range=64, extents=(33,), scratch=64))
    (got,) = kit.check(plan, lambda: [rising(64, 33)])
    np.testing.assert_allclose(got, rising(64, 33).sum(1), rtol=1e-5)


def test_symbolic_sizes_one_plan_two_batches(kit, b):
    B = sym("B")
    x, t, y = b.input("x", B, 7), b.temporary(B, 7), b.output("y", B)
    plan = b.plan(
        b.call("affine", x, t, range=B * 7),
        b.call("rowsum", t, y, range=B, extents=(7,), scratch=64),
    )
    for batch in (5, 64, 1, 5):
        (got,) = kit.check(plan, lambda batch=batch: [rising(batch, 7)])
        np.testing.assert_allclose(got, (rising(batch, 7) * 2 + 1).sum(1), rtol=1e-6)
    executable = kit.executable(plan)
    assert executable.peak_bytes({"B": 4}) == 128
    with pytest.raises(TracemillError, match="no value for B"):
        executable.peak_bytes()


def test_derived_sizes(kit, b):
    """Offsets in the arena by name."""
    B = sym("B")
    x, t, u, y = b.input("x", B), b.temporary(B), b.temporary(B), b.output("y", B)
    plan = b.plan(
        b.call("affine", x, t, range=B), b.call("affine", t, u, range=B), b.call("add", t, u, y, range=B)
    )
    buffers = list(plan.buffers)
    buffers[u.buffer] = replace(buffers[u.buffer], offset=sym("at0"))
    plan = replace(plan, buffers=tuple(buffers), lets=(("at0", (B * 4 + 63) // 64 * 64),))
    (got,) = kit.check(plan, lambda: [rising(37)])
    t = rising(37) * np.float32(2) + np.float32(1)
    np.testing.assert_array_equal(got, t + (t * np.float32(2) + np.float32(1)))


def test_empty_batch(kit, b):
    B = sym("B")
    x, y = b.input("x", B, 7), b.output("y", B, 7)
    (got,) = kit.check(b.plan(b.call("affine", x, y, range=B * 7)), lambda: [np.empty((0, 7), np.float32)])
    assert got.shape == (0, 7)


def test_sizes_are_read_off_linear_axes_or_given(kit, b):
    B, T = sym("B"), sym("T")
    x, y = b.input("x", 4 * B + 1), b.output("y", T)
    plan = b.plan(b.call("affine", x, y, range=T), sizes=("T",))
    assert plan.sizes == (SizeSource("B", 0, 0, 4, 1), SizeSource("T"))
    executable = kit.executable(plan)
    (got,) = executable.run([rising(9)], {"B": 2, "T": 3})
    assert got.shape == (3,)
    with pytest.raises(TracemillError, match="needs values for the sizes T"):
        executable.run([rising(9)])
    with pytest.raises(TracemillError, match="no size is called Q"):
        executable.run([rising(9)], {"B": 2, "T": 3, "Q": 1})
    with pytest.raises(ShapeError, match=r"input x: expected shape \[13\] \(4\*B\+1\), got \[9\]"):
        executable.run([rising(9)], {"B": 3, "T": 3})


def test_find_sizes_prefers_plain_axes():
    B = sym("B")
    from tracemill.ir.dtypes import f32

    inputs = (
        PlanInput("a", f32, (2 * B,)),
        PlanInput("b", f32, (3, B)),
        PlanInput("c", f32, (B * B, sym("N") // 2)),
    )
    assert find_sizes(inputs) == (SizeSource("B", 1, 1), SizeSource("N"))


def test_repeat_with_strides(kit, b):
    """A scan: carry += x[i], stacked; the second plan walks backwards."""
    steps, n = 5, 40
    row = n * 4
    x, start = b.input("x", steps, n), b.input("start", n)
    carry, stacked, last = b.temporary(n), b.output("stacked", steps, n), b.output("last", n)
    forward = Repeat(
        steps,
        (
            b.call(
                "add", carry, BufferUse(x.buffer, 0, (row,)), BufferUse(stacked.buffer, 0, (row,)), range=n
            ),
            Copy(BufferUse(stacked.buffer, 0, (row,)), carry, row),
        ),
    )
    (got, final) = kit.check(
        b.plan(Copy(start, carry, row), forward, Copy(carry, last, row)),
        lambda: [rising(steps, n), rising(n)],
    )
    want = rising(n) + np.cumsum(rising(steps, n), 0, dtype=np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_array_equal(final, got[-1])

    end = (steps - 1) * row
    backward = Repeat(
        steps,
        (
            b.call(
                "add",
                carry,
                BufferUse(x.buffer, end, (-row,)),
                BufferUse(stacked.buffer, end, (-row,)),
                range=n,
            ),
            Copy(BufferUse(stacked.buffer, end, (-row,)), carry, row),
        ),
    )
    (got, _) = kit.check(
        b.plan(Copy(start, carry, row), backward, Copy(carry, last, row)),
        lambda: [rising(steps, n), rising(n)],
    )
    np.testing.assert_allclose(
        got, rising(n) + np.cumsum(rising(steps, n)[::-1], 0, dtype=np.float32)[::-1], rtol=1e-6
    )


def test_nested_repeat_with_symbolic_counts(kit, b):
    S, T, n = sym("S"), sym("T"), 8
    x, y = b.input("x", S, T, n), b.output("y", S, T, n)
    moved = (T * n * 4, n * 4)
    inner = Repeat(
        T,
        (
            b.call(
                "affine", BufferUse(x.buffer, 0, moved), BufferUse(y.buffer, 0, moved), range=n, waits=False
            ),
        ),
    )
    plan = b.plan(Repeat(S, (inner,)))
    for s, t in ((3, 4), (1, 1), (2, 0), (0, 3)):
        (got,) = kit.check(plan, lambda s=s, t=t: [rising(s, t, n)])
        np.testing.assert_array_equal(got, rising(s, t, n) * np.float32(2) + np.float32(1))


def counting(b, *, inside: tuple = ()):
    """while x[0] < limit: x += 1"""
    n = 50
    x, limit, y = b.input("x", n), b.input("limit", 1), b.output("y", n)
    flag, t = b.temporary(1, dtype=boolean), b.temporary(n)
    loop = While(flag, (b.call("below", t, limit, flag, range=1),), (b.call("bump", t, range=n), *inside))
    return n, (Copy(x, t, n * 4), loop, Copy(t, y, n * 4))


@pytest.mark.parametrize("limit", [0, 1, 17])
def test_while(kit, b, limit):
    n, entries = counting(b)
    (got,) = kit.check(b.plan(*entries), lambda: [np.zeros(n, np.float32), np.full(1, limit, np.float32)])
    np.testing.assert_array_equal(got, np.full(n, limit))


@pytest.mark.parametrize("taken", [True, False])
def test_branch_in_a_loop(kit, b, taken):
    n = 30
    flag, x = b.input("flag", 4, dtype=boolean), b.input("x", n)
    t, y = b.temporary(n), b.output("y", n)
    branch = Branch(
        BufferUse(flag.buffer, 0, (1,)),
        (b.call("bump", t, range=n), b.call("bump", t, range=n)),
        (b.call("affine", t, t, range=n),),
    )
    plan = b.plan(Copy(x, t, n * 4), Repeat(4, (branch,)), Copy(t, y, n * 4))
    flags = np.array([True, False, taken, True])
    (got,) = kit.check(plan, lambda: [flags.copy(), rising(n)])
    want = rising(n)
    for f in flags:
        want = want + np.float32(2) if f else want * np.float32(2) + np.float32(1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    "pattern", [b"\x07", b"\x01\x02", np.float32(1.5).tobytes(), np.float64(-2.25).tobytes()]
)
@pytest.mark.parametrize("nbytes", [0, 8, 24, 13 * 8, 1 << 18])
def test_fill_and_copy(kit, b, pattern, nbytes):
    from tracemill.ir.dtypes import u8

    y, z = b.output("y", nbytes, dtype=u8), b.output("z", nbytes, dtype=u8)
    got, copied = kit.check(b.plan(Fill(y, nbytes, pattern), Copy(y, z, nbytes)), lambda: [])
    assert got.tobytes() == (pattern * nbytes)[:nbytes]
    assert copied.tobytes() == got.tobytes()


def test_fill_of_an_odd_number_of_bytes(kit, b):
    from tracemill.ir.dtypes import u8

    y = b.output("y", 29, dtype=u8)
    (got,) = kit.check(b.plan(Fill(y, 29, b"\1\2\3\4")), lambda: [])
    assert got.tobytes() == (b"\1\2\3\4" * 8)[:29]


def test_a_kernel_calls_its_link(kit, b):
    x, factor, y = b.input("x", 40, 16), b.input("factor", 40), b.output("y", 40, 16)
    call = b.call("by_rows", x, factor, y, range=40, extents=(16, 3), links=("scaled",))
    plan = b.plan(call)
    assert plan.kernels == ("by_rows", "scaled") and plan.links == ("scaled",)
    assert "by_rows+scaled[40](in0, in1) -> out0" in plan.to_text()
    values = np.arange(640, dtype=np.float32).reshape(40, 16)
    factors = np.arange(40, dtype=np.float32)
    (result,) = kit.check(plan, lambda: [values, factors])
    np.testing.assert_array_equal(result, values * factors[:, None] + 3)
    with pytest.raises(InternalError, match="linked to itself"):
        b.plan(b.call("by_rows", x, y, range=1, links=("by_rows",))).validate()


def test_constants_are_aligned_and_not_shared_with_the_plan(kit, b):
    data = rising(33)
    c, x, y = b.constant(data.tobytes(), 33), b.input("x", 33), b.output("y", 33)
    (got,) = kit.check(b.plan(b.call("add", x, c, y, range=33)), lambda: [rising(33)])
    np.testing.assert_array_equal(got, data + data)


def test_outputs_are_aligned_and_fresh(kit, b):
    x, y = b.input("x", 33), b.output("y", 33)
    executable = kit.executable(b.plan(b.call("affine", x, y, range=33)))
    first, second = executable.run([rising(33)])[0], executable.run([rising(33)])[0]
    assert first.ctypes.data % 64 == 0 and not np.shares_memory(first, second)
    given = np.empty(33, np.float32)
    assert executable.run([rising(33)], out=[given])[0] is given
    np.testing.assert_array_equal(given, first)


# Donation.


def donating(b):
    p, g, q = b.input("p", 100), b.input("g", 100), b.output("q", 100, replaces=0)
    return b.plan(b.call("add", p, g, q, range=100))


def test_donated_output_is_the_input(kit, b):
    executable = kit.executable(donating(b))
    p, g = rising(100), rising(100)
    for _ in range(3):
        (q,) = executable.run([p, g])
        assert q is p
    np.testing.assert_allclose(p, 4 * rising(100), rtol=1e-6)
    np.testing.assert_array_equal(g, rising(100))


def test_donation_is_refused_where_it_would_change_another_input(kit, b):
    executable = kit.executable(donating(b))
    p = rising(200)
    with pytest.raises(TracemillError, match="input p is updated in place, but input g is the same memory"):
        executable.run([p[:100], p[:100]])
    with pytest.raises(TracemillError, match="the same memory"):
        executable.run([p[50:150], p[:100]])
    executable.run([p[:100], p[100:]])
    fixed = rising(100)
    fixed.flags.writeable = False
    with pytest.raises(TracemillError, match="input p is updated in place, but the array is read-only"):
        executable.run([fixed, rising(100)])
    with pytest.raises(TracemillError, match="output q replaces an input"):
        executable.run([rising(100), rising(100)], out=[rising(100)])


def test_inputs_may_swap_places_between_runs(kit, b):
    executable = kit.executable(donating(b))
    p, g = np.ones(100, np.float32), np.ones(100, np.float32)
    executable.run([p, g])
    executable.run([g, p])
    assert p[0] == 2 and g[0] == 3


# Errors.


@pytest.mark.parametrize(
    "array, error, message",
    [
        ([1.0, 2.0], DTypeError, "input x: expected a NumPy array, got list"),
        (None, DTypeError, "input x: expected a NumPy array, got NoneType"),
        (np.ones((4, 3)), DTypeError, "input x: expected dtype float32, got float64"),
        (np.ones((4, 2), np.float32), ShapeError, r"input x: expected shape \[4, 3\] \(B, 3\), got \[4, 2\]"),
        (np.ones(3, np.float32), ShapeError, r"input x: expected shape \[3, 3\] \(B, 3\), got \[3\]"),
        (np.ones((3, 4), np.float32).T, TracemillError, "input x: .* is not C-contiguous"),
        (np.frombuffer(bytes(49), np.uint8)[1:].view(np.float32).reshape(4, 3), TracemillError, "aligned"),
    ],
)
def test_unfit_inputs_are_refused(kit, b, array, error, message):
    x, y = b.input("x", sym("B"), 3), b.output("y", sym("B"), 3)
    executable = kit.executable(b.plan(b.call("affine", x, y, range=sym("B") * 3)))
    good = rising(4, 3)
    executable.run([good])
    for _ in range(2):
        with pytest.raises(error, match=message):
            executable.run([array])
    executable.run([good])
    with pytest.raises(TracemillError, match="takes 1 inputs, got 2"):
        executable.run([good, good])


def test_every_occurrence_of_a_size_is_checked(kit, b):
    B = sym("B")
    x, g, y = b.input("x", B), b.input("g", B), b.output("y", B)
    executable = kit.executable(b.plan(b.call("add", x, g, y, range=B)))
    with pytest.raises(ShapeError, match=r"input g: expected shape \[4\] \(B\), got \[5\]"):
        executable.run([rising(4), rising(5)])


def failing(b, n=64):
    """take, then an update in place that must not happen when take fails."""
    x, index = b.input("x", 10), b.input("index", n, dtype=i64)
    p, q, y = b.input("p", n), b.output("q", n, replaces=2), b.output("y", n)
    return b.plan(
        b.call("take", x, index, y, range=n, extents=(10,), fallible=True, faults=(Fault(7, "gather", 0),)),
        b.call("add", p, y, q, range=n, waits=False),
    )


def test_a_failing_kernel_stops_the_run_before_any_later_entry(kit, b):
    plan = failing(b)
    executable = kit.executable(plan, sites=(Location("script.py", 7),))
    good = np.arange(64) % 10
    for count in (1, 2, 4):
        workers.set_num_threads(count)
        for bad_at in ((3,), (63,), (40, 50), (5, 60)):
            index = good.copy()
            for k, at in enumerate(bad_at):
                index[at] = 12 + k
            p = rising(64)
            with pytest.raises(KernelError) as info:
                executable.run([rising(10), index, p])
            assert (
                str(info.value)
                == "script.py:7: gather: index 12 is out of range for a dimension of extent 10"
            )
            assert isinstance(info.value, IndexRangeError)
            np.testing.assert_array_equal(p, rising(64))
            executable.run([rising(10), good, p])  # and goes on as if nothing had happened
            np.testing.assert_array_equal(p, rising(64) + rising(10)[good])


def test_the_reference_runner_fails_alike(kit, b):
    from tracemill.runtime.reference_runner import run_reference

    plan = failing(b)
    index = np.arange(64) % 10
    index[[20, 50]] = 33, 44
    with pytest.raises(KernelError, match="gather: index 33"):
        run_reference(
            plan,
            {k: kit.plain(k) for k in plan.kernels},
            [rising(10), index, rising(64)],
            workers=3,
            backwards=True,
        )


def test_missing_code_and_sizes_are_named(kit, b):
    from tracemill.runtime.executor import Executable

    x, y = b.input("x", 3), b.output("y", 3)
    with pytest.raises(InternalError, match="kernel nothing, whose code is missing"):
        Executable(b.plan(b.call("nothing", x, y, range=3)), {}, kit.runner)


# Host calls.


@pytest.fixture
def functions() -> Iterator[None]:
    before = dict(host._functions)
    yield
    host._functions.clear()
    host._functions.update(before)


def test_host_calls_park_the_workers_and_go_on(kit, b, functions):
    from tracemill.ir.dtypes import f32

    steps, n = 3, 20
    seen = []

    @host.register_host("scale")
    def scale(source, target, by):
        seen.append((source.flags.writeable, target.flags.writeable))
        target[...] = (source * np.float32(by)).reshape(target.shape)

    x, t, y = b.input("x", steps, n), b.temporary(n), b.output("y", steps, n)
    row, out = BufferUse(x.buffer, 0, (n * 4,)), BufferUse(y.buffer, 0, (n * 4,))
    flat, square = HostOperand(t, f32, (n,)), HostOperand(out, f32, (4, 5))
    first = Host("scale", (flat, square), attrs=(("by", 3.0),))
    second = Host("scale", (square, square), attrs=(("by", 2.0),))
    plan = b.plan(
        Repeat(steps, (b.call("affine", row, t, range=n), first, second, b.call("bump", out, range=n)))
    )
    (got,) = kit.check(plan, lambda: [rising(steps, n)])
    np.testing.assert_allclose(got, (rising(steps, n) * 2 + 1) * 6 + 1, rtol=1e-6)
    assert set(seen) == {(False, True)}


def test_host_errors_leave_a_usable_executable(kit, b, functions):
    from tracemill.ir.dtypes import f32

    n = 20
    x, y = b.input("x", n), b.output("y", n)
    host.register_host("check", lambda a, c: check(a, c))

    def check(a, c):
        if a[0] < 0:
            raise host.HostFault("a negative number", node=2, hint="use another")
        if a[0] > 100:
            raise ZeroDivisionError("any error")
        c[:] = a

    call = Host(
        "check", (HostOperand(x, f32, (n,)), HostOperand(y, f32, (n,))), faults=(Fault(2, "root", 0),)
    )
    executable = kit.executable(b.plan(call, b.call("bump", y, range=n)), sites=(Location("a.py", 3),))
    for count in (1, 2):
        workers.set_num_threads(count)
        with pytest.raises(KernelError, match=r"a.py:3: root: a negative number\n  hint: use another"):
            executable.run([np.full(n, -1, np.float32)])
        with pytest.raises(ZeroDivisionError):
            executable.run([np.full(n, 101, np.float32)])
        np.testing.assert_array_equal(executable.run([np.full(n, 7, np.float32)])[0], np.full(n, 8))


def test_runs_nest_in_host_functions(kit, b, functions):
    """The arena of the outer run is not the inner one's."""
    from tracemill.ir.dtypes import f32

    n = 20
    x, t, y = b.input("x", n), b.temporary(n), b.output("y", n)
    inner = kit.executable(b.plan(b.call("affine", x, t, range=n), b.call("affine", t, y, range=n)))
    host.register_host("nested", lambda a, c: np.copyto(c, inner.run([np.ascontiguousarray(a)])[0]))
    call = Host("nested", (HostOperand(t, f32, (n,)), HostOperand(y, f32, (n,))))
    plan = b.plan(b.call("bump", t, range=n), call, b.call("add", t, y, y, range=n))
    plan = b.plan(Copy(x, t, n * 4), *plan.entries)
    (got,) = kit.executable(plan).run([rising(n)])
    t = rising(n) + np.float32(1)
    np.testing.assert_allclose(got, t + ((t * 2 + 1) * 2 + 1), rtol=1e-6)


def test_host_functions_are_registered_once(functions):
    host.register_host("once", len)
    host.register_host("once", len)
    with pytest.raises(InternalError, match="two host functions"):
        host.register_host("once", max)
    with pytest.raises(InternalError, match="which nobody registered"):
        host.host_function("never")


# Shares, decisions, profile.


def test_shares_cover_the_range_in_order():
    for extent in (0, 1, 7, 15, 16, 33, 100, 4097):
        for grain in (1, 4, 16, 64):
            for count in (1, 2, 3, 8):
                bounds = shares(extent, grain, count)
                assert len(bounds) == count + 1 and bounds[0] == 0 and bounds[-1] == extent
                assert bounds == sorted(bounds)
                parts = [h - low for low, h in pairwise(bounds) if h > low]
                assert len(parts) <= 1 or min(parts) > grain - 16 - (grain < 16)


def test_small_plans_run_alone_and_large_ones_do_not(kit, b):
    workers.set_num_threads(2)
    B = sym("B")
    x, y = b.input("x", B), b.output("y", B)
    executable = kit.executable(b.plan(b.call("affine", x, y, range=B, work=3 * B)), parallel=False)
    executable.run([rising(100)])
    assert executable._last[1].alone
    executable.run([rising(1_000_000)])
    assert not executable._last[1].alone


def test_bindings_are_bounded(kit, b):
    B = sym("B")
    x, y = b.input("x", B), b.output("y", B)
    executable = kit.executable(b.plan(b.call("affine", x, y, range=B)))
    for n in range(1, 40):
        executable.run([rising(n)])
    assert len(executable._bounds) == 16


def test_profile_counts_launches(kit, b):
    n, entries = counting(b)
    plan = b.plan(*entries)
    executable = kit.executable(plan)
    executable.profile = Profile(plan)
    for count in (1, 2):
        workers.set_num_threads(count)
        executable.profile.clear()
        executable.run([np.zeros(n, np.float32), np.full(1, 5, np.float32)])
        calls = {t.label: t.calls for t in executable.profile.entries()}
        assert calls["kernel bump"] == 5 and calls["kernel below"] == 6
        assert executable.profile.total_ns > 0
    assert "kernel bump" in executable.profile.to_text()


def test_profile_counts_bytes_and_operations_of_named_sizes(kit, b):
    B = sym("B")
    x, y = b.input("x", B), b.output("y", B)
    plan = b.plan(replace(b.call("affine", x, y, range=B), work=3 * B))
    executable = kit.executable(plan)
    executable.profile = Profile(plan)
    executable.run([rising(10)])
    (timing,) = (t for t in executable.profile.entries() if t.calls)
    assert (timing.operations, timing.nbytes) == (30, 2 * 4 * 10)
