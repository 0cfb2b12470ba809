"""The native plan runner: Python source that Numba turns into one object without undefined symbols.

The runtime loads that object without a compiler. Everything is an int64: addresses, words and counts
(`runtime/layout.py` says where what lies). C functions (yield, sleep, mutex, condition, memcpy, clock) are
called by the addresses that the runtime puts into the environment block, kernels by the addresses in the
packed code.

One function serves callers and workers. All workers of a run walk the same code; each takes its own share of
every launch, and they meet at the barriers. What decides the way (a predicate, a failure) is read once, by
the last worker to arrive at a barrier, and published in the word that releases the others: their control flow
cannot diverge.
"""

from __future__ import annotations

from numba.core import types

from ...runtime import layout as L
from .numba_cpu import compile_function
from .runner_intrinsics import (
    add_fetch,
    call_kernel,
    call_native,
    compare_swap,
    load,
    load_byte,
    load_sync,
    pause,
    store,
    store_sync,
)


def _relax(env: int, rounds: int) -> None:
    """Wait a little: pause, later let other threads run, later sleep (a core may have been taken away)."""
    spins = load(env, L.ENV_SPINS)
    if rounds < spins:
        pause()
    elif rounds < spins + load(env, L.ENV_YIELDS):
        call_native(load(env, L.ENV_YIELD), 0, 0, 0)
    else:
        call_native(load(env, L.ENV_SLEEP), env + L.ENV_TIMESPEC * 8, 0, 0)


def _post(env: int, mail: int, job: int) -> None:
    """Hand `job` to an idle worker. Either it sees the job before it parks, or we see that it parked."""
    store_sync(mail, L.MAIL_JOB, job)
    if load_sync(mail, L.MAIL_PARKED) != 0:
        mutex = mail + L.MAIL_MUTEX * 8
        call_native(load(env, L.ENV_LOCK), mutex, 0, 0)
        call_native(load(env, L.ENV_SIGNAL), mail + L.MAIL_CONDITION * 8, 0, 0)
        call_native(load(env, L.ENV_UNLOCK), mutex, 0, 0)


def _receive(env: int, mail: int) -> int:
    """The next job of this worker's mailbox: spin, yield, then park without using the CPU."""
    rounds = 0
    limit = load(env, L.ENV_SPINS) + load(env, L.ENV_YIELDS)
    while load_sync(mail, L.MAIL_JOB) == 0:
        if rounds < limit:
            _relax(env, rounds)
            rounds += 1
        else:
            mutex = mail + L.MAIL_MUTEX * 8
            call_native(load(env, L.ENV_LOCK), mutex, 0, 0)
            store_sync(mail, L.MAIL_PARKED, 1)
            while load_sync(mail, L.MAIL_JOB) == 0:
                call_native(load(env, L.ENV_WAIT), mail + L.MAIL_CONDITION * 8, mutex, 0)
            store_sync(mail, L.MAIL_PARKED, 0)
            call_native(load(env, L.ENV_UNLOCK), mutex, 0, 0)
    return load_sync(mail, L.MAIL_JOB)


def _enter(env: int, pool: int, job: int) -> int:
    """Start the workers on a job; how many walk it: one, the caller, if it is small or the pool is taken."""
    count = load(job, L.JOB_WORKERS)
    if count == 1 or pool == 0 or load(job, L.JOB_ALONE) != 0:
        return 1
    if compare_swap(pool, L.POOL_BUSY, 0, 1) == 0:
        return 1
    worker = 1
    while worker < count:
        _post(env, pool + (L.POOL_MAIL + worker * L.MAIL_WORDS) * 8, job)
        worker += 1
    return count


def _leave(env: int, pool: int, count: int) -> None:
    """Wait until every worker has put its job down, then free the pool."""
    if count > 1:
        worker = 1
        while worker < count:
            mail = pool + (L.POOL_MAIL + worker * L.MAIL_WORDS) * 8
            rounds = 0
            while load_sync(mail, L.MAIL_JOB) != 0:
                _relax(env, rounds)
                rounds += 1
            worker += 1
        store_sync(pool, L.POOL_BUSY, 0)


def _decide(job: int, predicate: int) -> int:
    """What a barrier tells: 1 if a kernel failed, 2 if the byte at `predicate` (0: none) is set."""
    told = 0
    if load_sync(job, L.JOB_ERROR) != 0:
        told = 1
    if predicate != 0 and load_byte(predicate) != 0:
        told += 2
    return told


def _barrier(env: int, pool: int, job: int, count: int, predicate: int) -> int:
    """Wait for all workers; returns what the last to arrive decided."""
    if count == 1:
        told = _decide(job, predicate)
    else:
        before = load_sync(pool, L.POOL_RELEASE)
        if add_fetch(pool, L.POOL_ARRIVED, 1) == count:
            store_sync(pool, L.POOL_ARRIVED, 0)
            told = _decide(job, predicate)
            store_sync(pool, L.POOL_RELEASE, ((before >> 2) + 1) * 4 + told)
        else:
            rounds = 0
            now = before
            while now == before:
                _relax(env, rounds)
                rounds += 1
                now = load_sync(pool, L.POOL_RELEASE)
            told = now & 3
    return told


def _clock(env: int, frame: int) -> int:
    """Nanoseconds of the monotonic clock."""
    call_native(load(env, L.ENV_CLOCK), load(env, L.ENV_CLOCK_ID), frame + L.FRAME_CLOCK * 8, 0)
    return load(frame, L.FRAME_CLOCK) * 1000000000 + load(frame, L.FRAME_CLOCK + 1)


def _resolve(job: int, frame: int, at: int) -> None:
    """Write the pointers of a launch into the frame: base + offset + the strides times the loop counters."""
    bases = load(job, L.JOB_BASES)
    levels = load(at, L.AT_LEVELS)
    number = load(at, L.AT_BUFFERS)
    use = at + L.AT_USES * 8
    i = 0
    while i < number:
        pointer = load(bases, load(use, 0)) + load(use, 1)
        level = 0
        while level < levels:
            pointer += load(use, 2 + level) * load(frame, L.FRAME_COUNTERS + level)
            level += 1
        store(frame, L.FRAME_POINTERS + i, pointer)
        use += (2 + levels) * 8
        i += 1


def _fill(target: int, pattern: int, begin: int, end: int, copy: int) -> None:
    """Repeat the eight bytes at address `pattern` over [begin, end); `begin` is a multiple of eight."""
    value = load(pattern, 0)
    whole = begin + ((end - begin) >> 3 << 3)
    i = begin
    while i < whole:
        store(target + i, 0, value)
        i += 8
    if whole < end:
        call_native(copy, target + whole, pattern, end - whole)


def _launch(env: int, job: int, frame: int, at: int, op: int, worker: int, count: int) -> None:
    """Run this worker's share of a kernel, copy or fill whose pointers the frame holds."""
    shares = at + load(at, L.AT_SHARES) * 8
    begin = load(shares, worker)
    end = load(shares, load(job, L.JOB_WORKERS))
    if count > 1:
        end = load(shares, worker + 1)
    if begin < end:
        operands = at + load(at, L.AT_OPERANDS) * 8
        first = load(frame, L.FRAME_POINTERS)
        if op == L.OP_KERNEL:
            scratch = load(job, L.JOB_SCRATCH) + worker * load(job, L.JOB_SCRATCH_BYTES)
            result = call_kernel(
                load(at, L.AT_FUNCTION),
                frame + L.FRAME_POINTERS * 8,
                operands,
                begin,
                end,
                scratch,
                frame + L.FRAME_STATUS * 8,
            )
            if result != 0:
                store(frame, L.FRAME_RESULT, result)
                store(frame, L.FRAME_ENTRY, load(at, L.AT_ENTRY))
                store_sync(job, L.JOB_ERROR, 1)
        elif op == L.OP_COPY:
            source = load(frame, L.FRAME_POINTERS + 1)
            if first != source:
                call_native(load(env, L.ENV_COPY), first + begin, source + begin, end - begin)
        else:
            _fill(first, operands, begin, end, load(env, L.ENV_COPY))


def _suspend(job: int, frame: int, at: int) -> None:
    """Note where to go on after a host call. For worker 0, behind a barrier: nobody reads them then."""
    store(job, L.JOB_ENTRY, load(at, L.AT_ENTRY))
    store(job, L.JOB_START, ((at - load(job, L.JOB_CODE)) >> 3) + load(at, L.AT_WORDS))
    level = 0
    while level < L.MAX_LEVELS:
        store(job, L.JOB_COUNTERS + level, load(frame, L.FRAME_COUNTERS + level))
        level += 1


def _walk(env: int, pool: int, job: int, worker: int, count: int) -> int:
    """Walk the packed code from its start word to the end, a host call, or a failure."""
    code = load(job, L.JOB_CODE)
    profile = 0
    if worker == 0:
        profile = load(job, L.JOB_PROFILE)
    frame = load(job, L.JOB_FRAMES) + worker * load(job, L.JOB_FRAME_BYTES)
    level = 0
    while level < L.MAX_LEVELS:
        store(frame, L.FRAME_COUNTERS + level, load(job, L.JOB_COUNTERS + level))
        level += 1
    pc = load(job, L.JOB_START)
    began = 0
    while True:
        at = code + pc * 8
        op = load(at, L.AT_OP)
        pc += load(at, L.AT_WORDS)
        if profile != 0:
            began = _clock(env, frame)
        told = 0
        if op == L.OP_KERNEL or op == L.OP_COPY or op == L.OP_FILL:
            _resolve(job, frame, at)
            _launch(env, job, frame, at, op, worker, count)
        elif op == L.OP_REPEAT:
            store(frame, L.FRAME_COUNTERS + load(at, L.AT_LEVEL), 0)
            if load(at, L.AT_COUNT) <= 0:
                pc = load(at, L.AT_TARGET)
        elif op == L.OP_NEXT:
            counter = load(frame, L.FRAME_COUNTERS + load(at, L.AT_LEVEL)) + 1
            if counter < load(at, L.AT_COUNT):
                store(frame, L.FRAME_COUNTERS + load(at, L.AT_LEVEL), counter)
                pc = load(at, L.AT_TARGET)
        elif op == L.OP_JUMP:
            pc = load(at, L.AT_JUMP)
        elif op == L.OP_END:
            break
        else:  # OP_SYNC, OP_TEST, OP_HOST: all workers meet
            predicate = 0
            if op == L.OP_TEST:
                _resolve(job, frame, at)
                predicate = load(frame, L.FRAME_POINTERS)
            told = _barrier(env, pool, job, count, predicate)
            if told & 1:
                return L.FAILED
            if op == L.OP_HOST:
                if worker == 0:
                    _suspend(job, frame, at)
                return L.AT_HOST
            if op == L.OP_TEST and told == 0:
                pc = load(at, load(at, L.AT_OPERANDS))
        if profile != 0:
            passed = _clock(env, frame) - began
            times = profile + load(at, L.AT_ENTRY) * 24
            if op == L.OP_SYNC or op == L.OP_TEST:
                store(times, 1, load(times, 1) + passed)
            else:
                store(times, 0, load(times, 0) + 1)
                store(times, 2, load(times, 2) + passed)
    return L.DONE


def runner(call: int, block: int, worker: int) -> int:
    """RUN: walk the job at `block`. WORK: serve the pool at `block` until stopped. STOP: end that worker."""
    pool = block
    if call == L.CALL_RUN:
        pool = load(block, L.JOB_POOL)
        env = load(block, L.JOB_ENVIRONMENT)
    else:
        env = load(block, L.POOL_ENVIRONMENT)
    mail = pool + (L.POOL_MAIL + worker * L.MAIL_WORDS) * 8
    if call == L.CALL_STOP:
        _post(env, mail, L.MAIL_STOP)
        return L.DONE
    job = block
    count = 1
    if call == L.CALL_RUN:
        count = _enter(env, pool, job)
    while True:
        if call == L.CALL_WORK:
            job = _receive(env, mail)
            if job == L.MAIL_STOP:
                break
            count = load(job, L.JOB_WORKERS)
        result = _walk(env, pool, job, worker, count)
        if call == L.CALL_RUN:
            _leave(env, pool, count)
            if load_sync(job, L.JOB_ERROR) != 0:
                result = L.FAILED
            if result == L.DONE:  # only now: until here a slow worker may not have read where to start
                store(job, L.JOB_START, 0)
            store(job, L.JOB_ANSWER, result)
            return result
        store_sync(mail, L.MAIL_JOB, 0)
    return L.DONE


def compile_runner(cpu: str | None = None) -> bytes:
    """The runner as a relocatable object that exports `layout.RUNNER_SYMBOL`, all its values int64.

    Args:
        cpu: LLVM CPU name; by default `TRACEMILL_CPU` or the host.

    Raises:
        TracemillError: the CPU is not known.
    """
    return compile_function(runner, (types.int64,) * 3, types.int64, L.RUNNER_SYMBOL, cpu)
