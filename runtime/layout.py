"""Memory layout shared by the packed plan (written here) and the native runner (which reads it).

All of it is arrays of int64 words. Nothing but numbers lives here, so that the compiler can freeze them into
the runner's machine code; a change of meaning must bump `VERSION`.

Code: a sequence of instructions, each `[operation, words, entry, ...]`, `words` being its length and `entry`
the number of the plan entry it came from. Launch-like instructions (kernel, copy, fill, test) share one
form::

    [op, words, entry, function, buffers, levels, shares, operands, use 0, use 1, ...]

with uses of `2 + levels` words (slot, byte offset, one byte stride per enclosing repeat), `shares` and
`operands` being word offsets from the instruction's start: share w of worker w is `[shares[w], shares[w+1])`.
"""

from __future__ import annotations

VERSION = 2
RUNNER_SYMBOL = f"tracemill_runner_{VERSION}"
WORD = 8

# Operations of the packed code.
OP_END = 0
OP_KERNEL = 1  # operands: the kernel's extents
OP_COPY = 2  # uses: destination, source; the range is bytes
OP_FILL = 3  # use: destination; operand: the pattern repeated to eight bytes; the range is bytes
OP_TEST = 4  # use: one byte; operand: word of the code to go to when it is zero
OP_SYNC = 5  # barrier
OP_REPEAT = 6  # [.., level, count, end]: start of a counted loop, `end` the word after it
OP_NEXT = 7  # [.., level, count, begin]: end of its body, `begin` the body's first word
OP_JUMP = 8  # [.., target]
OP_HOST = 9  # back to Python

# Launch-like instructions, in words.
AT_OP = 0
AT_WORDS = 1
AT_ENTRY = 2
AT_FUNCTION = 3
AT_BUFFERS = 4
AT_LEVELS = 5
AT_SHARES = 6
AT_OPERANDS = 7
AT_USES = 8
# Loop and jump instructions.
AT_LEVEL = 3
AT_COUNT = 4
AT_TARGET = 5
AT_JUMP = 3

MAX_LEVELS = 8

# The job block: what one run needs. Its first words are fixed per run state, the second line changes per run.
JOB_CODE = 0
JOB_BASES = 1
JOB_FRAMES = 2
JOB_FRAME_BYTES = 3
JOB_SCRATCH = 4
JOB_SCRATCH_BYTES = 5
JOB_WORKERS = 6  # number of shares in the code
JOB_ALONE = 7  # nonzero: too little work to share
JOB_POOL = 8  # address of the pool block; zero: run alone
JOB_ENVIRONMENT = 9
JOB_PROFILE = 10  # address of three words an entry (calls, nanoseconds waiting, working); zero: off
JOB_ENTRY = 11  # entry of the host call a run stopped at
JOB_START = 12  # word of the code to start at
JOB_ANSWER = 13  # what the last call of the runner answered
JOB_COUNTERS = 16  # loop counters to start with
JOB_ERROR = 32  # nonzero once a kernel failed
JOB_WORDS = 48

# One frame per worker: its status, loop counters, and the pointers of the launch in progress.
FRAME_STATUS = 0  # code, node, index, extent
FRAME_RESULT = 4  # what the failing kernel returned
FRAME_ENTRY = 5
FRAME_CLOCK = 6  # a timespec
FRAME_COUNTERS = 8
FRAME_POINTERS = 16

# The environment block: addresses of C functions and waiting times, constant in a process.
ENV_YIELD = 0
ENV_SLEEP = 1
ENV_LOCK = 2
ENV_UNLOCK = 3
ENV_WAIT = 4
ENV_SIGNAL = 5
ENV_COPY = 6
ENV_CLOCK = 7
ENV_CLOCK_ID = 8
ENV_SPINS = 9  # pauses before a waiting worker yields
ENV_YIELDS = 10  # yields before it sleeps (at a barrier) or parks (when idle)
ENV_TIMESPEC = 12  # how long one sleep takes: seconds, nanoseconds
ENV_WORDS = 16

# The pool block: the barrier (each word on its own pair of cache lines), then one mailbox per worker.
POOL_BUSY = 0
POOL_ARRIVED = 16
POOL_RELEASE = 32  # generation * 4 + predicate * 2 + stop
POOL_ENVIRONMENT = 48
POOL_MAIL = 64
MAIL_JOB = 0  # address of the job, 0 when idle, MAIL_STOP to end the worker
MAIL_PARKED = 16
MAIL_MUTEX = 24  # pthread_mutex_t and pthread_cond_t, at most 64 bytes each
MAIL_CONDITION = 32
MAIL_WORDS = 48
MAIL_STOP = 1

# What the runner is asked to do, and its answers to RUN.
CALL_RUN = 0
CALL_WORK = 1
CALL_STOP = 2
DONE = 0
AT_HOST = 1
FAILED = 2
NO_ANSWER = -1  # what the caller writes to JOB_ANSWER first
