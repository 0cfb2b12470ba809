"""Executables: a plan with its kernels' code, ready to run.

What a call costs beside the kernels: finding the binding of the sizes, looking whether each input is the
array of the last call, and one native call. Everything else happens once for each tuple of sizes (`bind`) or
each run state. Memory of small results that nobody holds any more is used again (`buffers.Recycler`).
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..ir.errors import DTypeError, InternalError, Location, ShapeError, TracemillError
from . import layout as L
from . import workers
from .bind import BoundPlan, HostOperandBinding
from .buffers import Arena, Array, Recycler, address, aligned_bytes, empty, return_arena, take_arena
from .faults import host_error, kernel_error
from .host import HostFault
from .interrupts import INTERRUPTS
from .plan import Host, Plan, PlanInput, PlanOutput
from .profile import Profile

# Bindings kept for each executable, and idle run states for each binding.
_BINDINGS, _STATES = 16, 4

Sizes = Mapping[str, int] | tuple[int, ...] | None
Key = tuple[int, tuple[int, ...]]  # number of threads, sizes in the plan's order


class KernelCode(NamedTuple):
    """Machine code of a kernel: a relocatable object and the symbol in it."""

    object: bytes
    symbol: str


class RunState:
    """What one run in progress needs: job block, base table, frames; with the inputs of the last run.

    Attributes:
        refs: weak references to the arrays whose addresses the base table holds. An array that is weakly
            referenced cannot be resized, so the same object means the same address.
    """

    def __init__(self, bound: BoundPlan, plan: Plan) -> None:
        self.bound = bound
        self.inputs = plan.inputs
        self.donated = [any(o.replaces == i for o in plan.outputs) for i in range(len(plan.inputs))]
        self.refs: list[Callable[[], Any]] = [object] * len(plan.inputs)
        self.changed: list[int] = []
        self.recyclers = [Recycler(o.shape, o.dtype) if o.replaces < 0 else None for o in bound.outputs]
        self.arena: Arena | None = None
        self.profile: Profile | None = None
        self._owned: list[tuple[int, int, int]] = []  # (address, end, input) of donated inputs, ascending
        frame = -(-(L.FRAME_POINTERS + bound.pointers) // 16) * 16
        bases = -(-len(bound.bases) // 16) * 16
        total = L.JOB_WORDS + bases + frame * bound.workers
        raw, offset = aligned_bytes(total * L.WORD, 128)
        block = np.ndarray((total,), np.int64, raw, offset)
        block[:] = 0
        self.job = address(block)
        words = block.data
        self.words: memoryview[int] = words[: L.JOB_WORDS]
        self.bases: memoryview[int] = words[L.JOB_WORDS : L.JOB_WORDS + bases]
        self.frames = block[L.JOB_WORDS + bases :].reshape(bound.workers, frame)
        for i, base in enumerate(bound.bases):
            self.bases[i] = base
        self.words[L.JOB_CODE] = address(bound.code)
        self.words[L.JOB_BASES] = self.job + L.JOB_WORDS * L.WORD
        self.words[L.JOB_FRAMES] = self.job + (L.JOB_WORDS + bases) * L.WORD
        self.words[L.JOB_FRAME_BYTES] = frame * L.WORD
        self.words[L.JOB_SCRATCH_BYTES] = bound.scratch
        self.words[L.JOB_WORKERS] = bound.workers
        self.words[L.JOB_ALONE] = int(bound.alone)
        self.words[L.JOB_ENVIRONMENT] = workers.environment()
        # ctypes converts these once instead of at each call.
        self.call: tuple[Any, ...] = ctypes.c_int64(L.CALL_RUN), ctypes.c_int64(self.job), ctypes.c_int64(0)

    def place(self, inputs: Sequence[Array]) -> None:
        """Note where the inputs lie; free of charge for those of the last run."""
        for ref, array in zip(self.refs, inputs, strict=True):
            if ref() is not array:
                break
        else:
            return
        for i, array in enumerate(inputs):
            if self.refs[i]() is not array:
                self.attach(i, array)
        if self.changed:
            self.settle(inputs)

    def equip(self, arena: Arena, profile: Profile | None) -> None:
        """Note where temporaries and scratch lie, and where times go."""
        bound, words = self.bound, self.words
        base = arena.reserve(bound.memory)
        self.arena, self.profile = arena, profile
        if profile is not None and profile.sizes is None:
            profile.sizes = bound.sizes
        self.bases[0] = base
        words[L.JOB_SCRATCH] = base + -(-bound.arena // 128) * 128
        words[L.JOB_PROFILE] = profile.address if profile is not None else 0

    def attach(self, number: int, array: Any) -> None:
        """Check input `number` and note its address.

        Raises:
            DTypeError, ShapeError, TracemillError: it is not what the plan was made for.
        """
        spec = self.inputs[number]
        check_array(spec, "input", array, self.bound.input_shapes[number])
        if self.donated[number] and not array.flags.writeable:
            raise TracemillError(f"input {spec.name} is updated in place, but the array is read-only")
        slot, found = self.bound.input_slot + number, address(array)
        if found != self.bases[slot]:
            self.bases[slot] = found
            self.changed.append(number)
        self.refs[number] = weakref.ref(array)

    def settle(self, inputs: Sequence[Array]) -> None:
        """After new inputs: refuse memory that is updated in place and also given as another input."""
        changed, self.changed = self.changed, []
        if not any(self.donated):
            return
        if any(self.donated[i] for i in changed):
            self._owned = sorted(
                self._span(i, inputs)
                for i, donated in enumerate(self.donated)
                if donated and inputs[i].nbytes
            )
            for low, high in zip(self._owned, self._owned[1:], strict=False):
                if low[1] > high[0]:
                    self._refuse(low[2], high[2])
            changed = list(range(len(inputs)))
        for i in changed:
            if not self.donated[i] and inputs[i].nbytes:
                self._check_overlap(i, inputs)

    def _span(self, number: int, inputs: Sequence[Array]) -> tuple[int, int, int]:
        base = self.bases[self.bound.input_slot + number]
        return base, base + inputs[number].nbytes, number

    def _check_overlap(self, number: int, inputs: Sequence[Array]) -> None:
        begin, end, _ = self._span(number, inputs)
        at = bisect_right(self._owned, (begin, end, len(inputs)))
        for low, high, owner in self._owned[max(at - 1, 0) : at + 1]:
            if low < end and begin < high:
                self._refuse(owner, number)

    def _refuse(self, owner: int, other: int) -> None:
        names = self.inputs[owner].name, self.inputs[other].name
        raise TracemillError(
            f"input {names[0]} is updated in place, but input {names[1]} is the same memory",
            hint="pass a copy of one of them",
        )


class Executable:
    """A compiled graph.

    Args:
        plan: what to run.
        kernels: code of each kernel that the plan names, or the address of one that is loaded already.
        runner: code or address of the native runner.
        sites: places in the user's program that the plan's faults refer to by number.

    Runs on several threads at a time are safe; with the workers only one of them, the others run alone. A
    KeyboardInterrupt is raised after the step in progress.
    """

    def __init__(
        self,
        plan: Plan,
        kernels: Mapping[str, KernelCode | int],
        runner: KernelCode | int,
        sites: Sequence[Location | None] = (),
    ) -> None:
        self.plan = plan
        self.sites = sites
        self.profile: Profile | None = None
        self._kernels = {key: _load(kernels, key) for key in plan.kernels}
        self._runner = workers.runner_at(
            runner if isinstance(runner, int) else _load({"runner": runner}, "runner")
        )
        self._constants = [_aligned_copy(constant.data) for constant in plan.constants]
        self._readers = [(s.input, s.axis, s.scale, s.offset) for s in plan.sizes]
        self._given = any(s.input < 0 for s in plan.sizes)
        self._lock = threading.Lock()
        self._bounds: dict[Key, BoundPlan] = {}
        self._last: tuple[Key, BoundPlan] | None = None

    def run(
        self,
        inputs: Sequence[Array],
        sizes: Sizes = None,
        out: Sequence[Array | None] | None = None,
    ) -> list[Array]:
        """Run once.

        Args:
            inputs: C-contiguous arrays of the plan's dtypes and shapes, in its order. Those that an output
                replaces are updated in place.
            sizes: values of the named sizes, or what `ordered` made of them; by default read off the inputs' shapes.
            out: for each output an array to write it to, or None for a new one.

        Returns:
            The outputs in order: new arrays, 64-byte aligned, or those of `out`, or the very inputs that they
            replace.

        Raises:
            DTypeError, ShapeError, TracemillError: inputs that do not fit; nothing has run.
            KernelError: a kernel met bad data; no donated input has been written.
        """
        bound = self._bound(inputs, sizes)
        states = bound.states
        state = states.pop() if states else RunState(bound, self.plan)
        state.place(inputs)
        results = self._outputs(state, inputs) if out is None else self._outputs_given(state, inputs, out)
        arena = take_arena()
        try:
            if arena is not state.arena or arena.base != state.bases[0] or self.profile is not state.profile:
                state.equip(arena, self.profile)
            self._execute(state)
        finally:
            return_arena(arena)
        # After an error the state is dropped: it may hold a run that is not at its end.
        if len(states) < _STATES:
            states.append(state)
        if INTERRUPTS.caught is not None:
            INTERRUPTS.show()
        return results

    def ordered(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Values of all named sizes in a form that `run` takes without looking at it again."""
        return tuple(self._sizes_given(sizes))

    def peak_bytes(self, sizes: Mapping[str, int] | None = None) -> int:
        """Bytes of temporaries at given sizes (the plan's arena, without inputs and outputs).

        Raises:
            TracemillError: a size of the plan is missing.
        """
        arena = self.plan.arena
        if isinstance(arena, int):
            return arena
        given = dict(zip((s.name for s in self.plan.sizes), self._sizes_given(sizes or {}), strict=True))
        return arena.evaluate(self.plan.with_lets(given))

    # Binding.

    def _bound(self, inputs: Sequence[Array], sizes: Sizes) -> BoundPlan:
        if len(inputs) != len(self.plan.inputs):
            raise TracemillError(f"{self.plan.name} takes {len(self.plan.inputs)} inputs, got {len(inputs)}")
        if sizes is None:
            values = self._sizes_read(inputs) if self._readers else ()
        else:
            values = sizes if isinstance(sizes, tuple) else self.ordered(sizes)
        key = (workers.get_num_threads(), values)
        last = self._last
        if last is not None and last[0] == key:
            return last[1]
        return self._find(key, inputs)

    def _sizes_read(self, inputs: Sequence[Array]) -> tuple[int, ...]:
        """The sizes as the inputs' shapes have them."""
        if self._given:
            names = ", ".join(s.name for s in self.plan.sizes if s.input < 0)
            raise TracemillError(f"{self.plan.name} needs values for the sizes {names}")
        try:
            return tuple([(inputs[i].shape[axis] - b) // a for i, axis, a, b in self._readers])
        except (AttributeError, IndexError):  # the check of the inputs will say what is wrong
            self._check_ranks(inputs)
            return (0,) * len(self._readers)

    def _sizes_given(self, sizes: Mapping[str, int]) -> list[int]:
        unknown = sorted(set(sizes) - {s.name for s in self.plan.sizes})
        missing = [s.name for s in self.plan.sizes if s.name not in sizes]
        if unknown or missing:
            problem = (
                f"no value for {', '.join(missing)}" if missing else f"no size is called {', '.join(unknown)}"
            )
            raise TracemillError(f"sizes of {self.plan.name}: {problem}")
        return [int(sizes[s.name]) for s in self.plan.sizes]

    def _check_ranks(self, inputs: Sequence[Array]) -> None:
        for spec, array in zip(self.plan.inputs, inputs, strict=True):
            shape = getattr(array, "shape", None)
            if not isinstance(array, np.ndarray) or shape is None or len(shape) != len(spec.shape):
                check_array(spec, "input", array, spec.shape)

    def _find(self, key: Key, inputs: Sequence[Array]) -> BoundPlan:
        with self._lock:
            bound = self._bounds.pop(key, None)
            if bound is None:
                values = dict(zip((s.name for s in self.plan.sizes), key[1], strict=True))
                for spec, array in zip(self.plan.inputs, inputs, strict=True):
                    shape = tuple(d if isinstance(d, int) else d.evaluate(values) for d in spec.shape)
                    check_array(spec, "input", array, shape)
                constants = [base for _, base in self._constants]
                bound = BoundPlan(self.plan, values, key[0], self._kernels, constants)
            self._bounds[key] = bound
            if len(self._bounds) > _BINDINGS:
                del self._bounds[next(iter(self._bounds))]
            self._last = key, bound
            return bound

    # Running.

    def _outputs(self, state: RunState, inputs: Sequence[Array]) -> list[Array]:
        results = []
        for output, recycler in zip(state.bound.outputs, state.recyclers, strict=True):
            if recycler is None:
                results.append(inputs[output.replaces])
            else:
                array, state.bases[output.slot] = recycler.take()
                results.append(array)
        return results

    def _outputs_given(
        self, state: RunState, inputs: Sequence[Array], out: Sequence[Array | None]
    ) -> list[Array]:
        if len(out) != len(self.plan.outputs):
            raise TracemillError(
                f"{self.plan.name} has {len(self.plan.outputs)} outputs, out has {len(out)} arrays"
            )
        results: list[Array] = []
        for output, spec, given in zip(state.bound.outputs, self.plan.outputs, out, strict=True):
            if output.replaces >= 0:
                array = inputs[output.replaces]
                if given is not None and given is not array:
                    raise TracemillError(
                        f"output {spec.name} replaces an input; it cannot go to another array"
                    )
                results.append(array)
                continue
            if given is None:
                array = empty(output.shape, output.dtype)
            else:
                array = given
                check_array(spec, "output", array, output.shape)
                if not array.flags.writeable:
                    raise TracemillError(f"the array given for output {spec.name} is read-only")
                if any(np.may_share_memory(array, other) for other in (*inputs, *results)):
                    raise TracemillError(
                        f"the array given for output {spec.name} overlaps an input or another output"
                    )
            state.bases[output.slot] = address(array)
            results.append(array)
        return results

    def _execute(self, state: RunState) -> None:
        if not state.bound.alone:
            state.words[L.JOB_POOL] = workers.pool_for(state.bound.workers, self._runner)
        result = self._native(state)
        while result == L.AT_HOST:
            self._call_host(state)
            result = self._native(state)
        if result != L.DONE:
            raise self._failure(state)

    def _native(self, state: RunState) -> int:
        """One call of the native runner. What a signal handler raises meanwhile is kept (`interrupts`)."""
        words = state.words
        words[L.JOB_ANSWER] = L.NO_ANSWER
        try:
            return self._runner(*state.call)
        except BaseException as error:
            answer = words[L.JOB_ANSWER]
            if answer == L.NO_ANSWER:
                raise
            INTERRUPTS.caught = error
            return answer

    def _failure(self, state: RunState) -> TracemillError:
        """The error of the first worker that met one: its share is the first in the range's order."""
        for frame in state.frames:
            if frame[L.FRAME_RESULT]:
                status = [int(word) for word in frame[L.FRAME_STATUS : L.FRAME_STATUS + 4]]
                return kernel_error(self.plan, int(frame[L.FRAME_ENTRY]), status, self.sites)
        return InternalError(f"plan {self.plan.name} failed without saying why")

    def _call_host(self, state: RunState) -> None:
        entry = state.words[L.JOB_ENTRY]
        binding = state.bound.hosts[entry]
        views = [_view(state, operand) for operand in binding.operands]
        try:
            binding.function(*views, **binding.attrs)
        except HostFault as fault:
            call = self.plan.flat[entry][1]
            if not isinstance(call, Host):
                raise
            raise host_error(call, fault, self.sites) from None


def check_array(spec: PlanInput | PlanOutput, role: str, array: Any, shape: tuple[Any, ...]) -> None:
    """Raise unless `array` is a C-contiguous, aligned array of the dtype of `spec` and the given shape."""
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"{role} {spec.name}: expected a NumPy array, got {type(array).__name__}")
    wanted = spec.dtype.numpy
    if array.shape == shape and array.dtype == wanted and array.flags.carray:
        return
    if array.dtype != wanted:
        raise DTypeError(f"{role} {spec.name}: expected dtype {wanted.name}, got {array.dtype.name}")
    if array.shape != shape:
        symbolic = f" ({', '.join(map(str, spec.shape))})" if spec.shape != shape else ""
        raise ShapeError(
            f"{role} {spec.name}: expected shape {_shape(shape)}{symbolic}, got {_shape(array.shape)}"
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise TracemillError(
            f"{role} {spec.name}: the array of shape {_shape(shape)} is not C-contiguous and aligned",
            hint="pass numpy.ascontiguousarray(...) of it",
        )


def _shape(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _view(state: RunState, operand: HostOperandBinding) -> Array:
    """The array of a host call's operand at the loop counters that the run stopped at."""
    nbytes = prod(operand.shape) * operand.dtype.itemsize
    if nbytes == 0:
        return np.empty(operand.shape, operand.dtype)
    at = state.bases[operand.slot] + operand.offset
    for level, stride in enumerate(operand.strides):
        at += stride * state.words[L.JOB_COUNTERS + level]
    memory = (ctypes.c_uint8 * nbytes).from_address(at)
    array: Array = np.frombuffer(memoryview(memory), np.uint8).view(operand.dtype).reshape(operand.shape)
    array.flags.writeable = operand.writable
    return array


def _load(kernels: Mapping[str, KernelCode | int], key: str) -> int:
    """The address of a kernel."""
    code = kernels.get(key)
    if code is None:
        raise InternalError(f"the plan calls the kernel {key}, whose code is missing")
    if isinstance(code, int):
        return code
    from .loader import load_object

    return load_object(code.object, code.symbol)


def _aligned_copy(data: bytes) -> tuple[Array, int]:
    """An aligned copy of constant bytes (kept alive by the caller) and its address."""
    array = empty((len(data),), np.dtype(np.uint8))
    array[:] = np.frombuffer(data, np.uint8)
    return array, address(array)
