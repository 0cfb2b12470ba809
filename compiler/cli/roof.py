"""This machine's two roofs, as tracemill's own kernels reach them: a large matrix product and a large copy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import f32
from ...ir.graph import InputSpec
from ...ir.types import TensorType
from ...runtime.workers import get_num_threads
from ..cache import default_root
from ..driver import compile_graph
from ..fingerprint import compiler_digest, cpu_identity

_SIDE, _LENGTH = 1024, 2**25


@dataclass(frozen=True, slots=True)
class Roof:
    """What a kernel can reach at most: billions of operations and of bytes (read plus written) a second."""

    gops: float
    gbytes: float

    def share(self, operations: float, nbytes: float, seconds: float) -> float:
        """How close to the nearer roof a kernel came: 1 is at the roof, a cache can lift it above."""
        needed = max(operations / self.gops, nbytes / self.gbytes) * 1e-9
        return needed / seconds if seconds > 0 else 0.0


def measured_roof() -> Roof:
    """The roofs for the present number of threads: measured once (about half a second), kept in the cache folder."""
    path = default_root() / "roofs.json"
    key = f"{cpu_identity()} {get_num_threads()} {compiler_digest()}"
    try:
        known = json.loads(path.read_text())
        return Roof(**known[key])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    found = Roof(_product(), _copy())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({key: asdict(found)}))
        temporary.replace(path)
    except OSError:  # a read-only folder only costs the next measurement
        pass
    return found


def _product() -> float:
    kind = TensorType(f32, (_SIDE, _SIDE))
    b = Builder()
    x, y = (b.input(index=i, type=kind) for i in range(2))
    graph = b.graph("roof_product", [InputSpec("x", kind), InputSpec("y", kind)],
                    [b.dot(x, y, contract_a=(1,), contract_b=(0,))])
    arrays = [np.ones((_SIDE, _SIDE), np.float32) for _ in range(2)]
    out = np.empty((_SIDE, _SIDE), np.float32)
    compiled = compile_graph(graph)
    return 2 * _SIDE**3 / _best(lambda: compiled.run(arrays, out=[out])) * 1e-9


def _copy() -> float:
    kind = TensorType(f32, (_LENGTH,))
    b = Builder()
    graph = b.graph("roof_copy", [InputSpec("x", kind)], [b.neg(b.input(index=0, type=kind))])
    source, target = np.ones(_LENGTH, np.float32), np.zeros(_LENGTH, np.float32)
    compiled = compile_graph(graph)
    return 2 * source.nbytes / _best(lambda: compiled.run([source], out=[target])) * 1e-9


def _best(run: Callable[[], object], count: int = 7) -> float:
    run()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)
