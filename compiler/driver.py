"""The compiler's front door: a traced graph in, an executable out.

A warm process runs no pass: the plan cache maps the traced graph's structure (with options, CPU and the compiler's own
digest) to a finished plan, the kernel cache holds the plan's machine code. Neither path imports numba, networkx or
lark.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import Location
from ..ir.graph import Graph, all_nodes
from ..ir.node import Node
from ..runtime import blas
from ..runtime.executor import Executable, KernelCode
from ..runtime.plan import Plan
from .backend.kernel_store import KernelStore, LoadedKernel, Progress
from .backend.spent import SPENT
from .cache import DiskCache, cache_key, compiler_digest, default_cache, toolchain
from .collection import no_collection

if TYPE_CHECKING:
    from .emit import Emitted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What changes a plan besides the graph.

    Attributes:
        fuse: form groups; off runs one kernel an operator (slower, the same bits).
    """

    fuse: bool = True

    def parts(self) -> dict[str, str]:
        """For cache keys."""
        return {f.name: repr(getattr(self, f.name)) for f in fields(self)}


@dataclass
class CompileStats:
    """What the driver did in this process; see `tm.stats()`."""

    graphs_compiled: int = 0
    plans_loaded: int = 0
    peak_bytes: int = 0
    pass_seconds: float = 0.0
    details: list[dict[str, Any]] = field(default_factory=list)


STATS = CompileStats()
_lock = threading.RLock()


class Compiled:
    """An executable graph.

    Attributes:
        graph: as it was traced.
        plan: what runs.
        from_cache: the plan was found, no pass ran.
    """

    def __init__(
        self, graph: Graph, executable: Executable, kernels: Sequence[LoadedKernel], from_cache: bool
    ) -> None:
        self.graph, self.executable, self.from_cache = graph, executable, from_cache
        self.kernels = tuple(kernels)
        self.plan = executable.plan
        self._free = dict(graph.sizes)

    def ordered(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Values of all named sizes in the form that `run` takes fastest."""
        return self.executable.ordered({s.name: sizes[s.name] for s in self.plan.sizes})

    def run(
        self,
        inputs: Sequence[Array],
        sizes: Mapping[str, int] | tuple[int, ...] | None = None,
        out: Sequence[Array | None] | None = None,
    ) -> list[Array]:
        """The graph's outputs.

        Args:
            inputs: one array per graph input, C-contiguous, of its dtype and shape.
            sizes: values of the free sizes (slots), the others are read off the inputs; or what `ordered` gave.
            out: arrays to write outputs to, or None for new ones.

        Raises:
            KernelError: bad data met while running; nothing donated was written.
        """
        if not isinstance(sizes, tuple):
            given = {**self._free, **(sizes or {})} if self._free else None
            sizes = given and self.plan.read_sizes([a.shape for a in inputs], given)
        return self.executable.run(inputs, sizes, out)

    def peak_bytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes of temporaries at given sizes."""
        return self.executable.peak_bytes(sizes)


def compile_graph(
    graph: Graph,
    options: CompileOptions | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Compile a traced graph, or find it compiled.

    Args:
        sizes: a typical binding of the named sizes, to weigh memory by; the result is valid for any other.
        progress: called as (kernels compiled, kernels to compile).

    Raises:
        TracemillError: the graph asks for something that cannot be done (at the user's line).
        InternalError: a bug of tracemill, with a reproducer.
    """
    options = options or CompileOptions()
    with _lock:
        key, parts = _plan_key(graph, options)
        found = _load_plan(graph, key)
        if found is not None:
            STATS.plans_loaded += 1
            _note(found)
        else:
            found = _compile(graph, options, dict(sizes or {}), key, parts, progress or _progress)
    for hook in tuple(_hooks):
        hook(found)
    return found


_hooks: list[Callable[[Compiled], None]] = []


def on_compiled(hook: Callable[[Compiled], None]) -> Callable[[], None]:
    """Call `hook` with every graph that is compiled, or found compiled; returns the function that undoes it."""
    _hooks.append(hook)
    return lambda: _hooks.remove(hook)


def expand_symbolic(graph: Graph) -> Graph:
    """The graph with gradients and updates expanded to plain operators (phases up to `optimizer`)."""
    from .pipeline import run_phases

    return run_phases(graph, until="optimizer")


def residuals(graph: Graph, outputs: Sequence[Node], wrt: Sequence[Node]) -> list[Node]:
    """The forward nodes that a later backward pass of `outputs` with respect to `wrt` reads."""
    from .passes.autodiff import residuals as find

    return find(graph, outputs, wrt)


# -- the way through the passes -------------------------------------------------------------------------------------


def lower_to_plan(
    graph: Graph, options: CompileOptions | None = None, sizes: Mapping[str, int] | None = None
) -> tuple[Graph, Emitted]:
    """The fused graph and its plan, nothing compiled."""
    from .emit import emit
    from .pipeline import run_phases

    options = options or CompileOptions()
    sizes = hints(graph, sizes)
    fused = run_phases(graph, until="fused", fuse=options.fuse, sizes=sizes)
    return fused, emit(fused, sizes)


def hints(graph: Graph, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """A value for every named size, to weigh bytes by."""
    known = dict.fromkeys(graph.size_names, 64) | dict(graph.sizes)
    return {name: (sizes or {}).get(name, value) for name, value in known.items()}


def _compile(
    graph: Graph,
    options: CompileOptions,
    sizes: dict[str, int],
    key: str,
    parts: dict[str, str],
    progress: Progress | None,
) -> Compiled:
    # Reading the nearest records takes time, so only who asks is told why nothing was found.
    why = (
        str(_disk().explain("plan", parts))
        if os.environ.get("TRACEMILL_EXPLAIN", "") not in ("", "0")
        else ""
    )
    _prepare()
    started = time.perf_counter()
    with no_collection():
        _, emitted = lower_to_plan(graph, options, sizes)
    seconds = time.perf_counter() - started
    requests = list(emitted.kernels.values())
    kernels = store().get_many(requests, progress=progress)
    by_symbol = {k.symbol: k for k in kernels}
    sites = [_site(graph, node) for node in emitted.sites]
    compiled = _executable(graph, emitted.plan, by_symbol, sites, from_cache=False)
    header = json.dumps({"kernels": {s: k.key for s, k in by_symbol.items()}, "sites": sites}).encode()
    payload = struct.pack("<Q", len(header)) + header + emitted.plan.to_bytes()
    _disk().put("plan", key, payload, parts)
    STATS.graphs_compiled += 1
    STATS.pass_seconds += seconds
    _note(compiled, sizes, pass_seconds=round(seconds, 4), **({"miss": why} if why else {}))
    return compiled


def _prepare() -> None:
    """Start what compiles kernels: it gets ready while the passes run."""
    from .backend import pool
    from .backend.native_runner import prepare_runner

    pool.prepare()
    prepare_runner(_disk())


def _note(compiled: Compiled, sizes: Mapping[str, int] | None = None, **more: Any) -> None:
    """Enter a compiled or loaded graph into the statistics."""
    entry = describe_compiled(compiled, sizes)
    STATS.peak_bytes = max(STATS.peak_bytes, entry["peak_bytes"])
    STATS.details.append(entry | more)


def describe_compiled(compiled: Compiled, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """A compiled graph in figures: name, nodes, update nodes, launches, kernels, peak bytes, whether it was cached.

    Args:
        sizes: values of named sizes to give the peak for; others count as 64.
    """
    graph, plan = compiled.graph, compiled.plan
    return {
        "graph": graph.name,
        "nodes": len(graph.nodes),
        "updates": sum(n.op.name == "update" for n in graph.nodes),
        "launches": len(plan.flat),
        "kernels": len(plan.kernels),
        "peak_bytes": compiled.peak_bytes(hints(graph, sizes) if graph.size_names else {}),
        "cached": compiled.from_cache,
    }


def _site(graph: Graph, node: Node) -> int:
    """Where a fault comes from, as the number of a traced node: plans are shared between places, so they hold none."""
    for i, n in enumerate(all_nodes(graph)):
        if n.place == node.place and n.place.location is not None:
            return i
    return -1


def _executable(
    graph: Graph, plan: Plan, kernels: Mapping[str, LoadedKernel], sites: Sequence[int], from_cache: bool
) -> Compiled:
    nodes = list(all_nodes(graph)) if sites else []
    places: list[Location | None] = [nodes[i].place.location if 0 <= i < len(nodes) else None for i in sites]
    executable = Executable(plan, {s: kernels[s].address for s in plan.kernels}, runner(), places)
    return Compiled(graph, executable, list(kernels.values()), from_cache)


# -- caches ---------------------------------------------------------------------------------------------------------


@cache
def store() -> KernelStore:
    """The kernels of this process."""
    return KernelStore(_disk())


def _disk() -> DiskCache:
    return default_cache()


def _plan_key(graph: Graph, options: CompileOptions) -> tuple[str, dict[str, str]]:
    cache_ = _disk()
    parts = {
        "graph": graph.digest.hex(),
        **options.parts(),
        **toolchain(),
        "gemm": "blas" if blas.chosen() else "generated",
        "compiler": compiler_digest(cache_.root),
    }
    return cache_key(parts), parts


def _load_plan(graph: Graph, key: str) -> Compiled | None:
    """The graph as an earlier process compiled it; None if the plan or one of its kernels is not in the cache."""
    cache_ = _disk()
    record = cache_.get("plan", key)
    if record is None:
        return None
    try:
        (length,) = struct.unpack_from("<Q", record.payload)
        header = json.loads(record.payload[8 : 8 + length])
        plan = Plan.from_bytes(record.payload[8 + length :])
    except Exception:  # a plan that does not read is made anew, whatever is wrong with it
        cache_.discard("plan", key)
        return None
    kernels = {symbol: store().by_key(k) for symbol, k in header["kernels"].items()}
    if any(k is None for k in kernels.values()):
        return None
    return _executable(
        graph, plan, {s: k for s, k in kernels.items() if k is not None}, header["sites"], from_cache=True
    )


@cache
def runner() -> int | KernelCode:
    """The native plan runner, loaded."""
    from .backend.native_runner import load_runner

    return load_runner(_disk())


_progress: Progress | None = None


def show_progress(callback: Progress | None) -> None:
    """Report compilations to `callback` from now on (the command line's progress bar)."""
    global _progress
    _progress = callback


def stats() -> dict[str, Any]:
    """Counters of this process: graphs compiled and loaded, kernels compiled and loaded, peak bytes."""
    kernels, plans = store().counters, _disk().counters["plan"]
    return {
        "graphs_compiled": STATS.graphs_compiled,
        "graphs_loaded": STATS.plans_loaded,
        "kernels_compiled": kernels.compiled,
        "kernels_loaded": kernels.loaded,
        "peak_bytes": STATS.peak_bytes,
        "pass_seconds": round(STATS.pass_seconds, 4),
        "kernel_seconds": round(store().compile_seconds, 4),
        "numba_seconds": round(SPENT.numba, 4),
        "llvm_seconds": round(SPENT.llvm, 4),
        "kernel_cache": kernels.as_dict(),
        "plan_cache": plans.as_dict(),
        "graphs": [dict(d) for d in STATS.details],
    }
