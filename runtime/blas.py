"""The BLAS that NumPy or SciPy brings, found for comparison with generated kernels (`TRACEMILL_GEMM=blas`).

Kernels call `cblas_sgemm` and `cblas_dgemm` by the names in `SYMBOLS`, which the loader resolves here; a name says how
wide the library's integers are. The library's own threads are turned off: kernels are shared out among ours.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..ir.errors import TracemillError

VARIABLE = "TRACEMILL_GEMM"
# Every name that a kernel may call.
SYMBOLS = tuple(f"tracemill_cblas_{kind}gemm_{bits}" for kind in "sd" for bits in ("i32", "i64"))
# Prefix and suffix of the names in a library, by the width of its integers.
_NAMES = (("scipy_", "64_", "i64"), ("", "64_", "i64"), ("scipy_", "", "i32"), ("", "", "i32"))
_SINGLE = (
    "scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "scipy_openblas_set_num_threads",
    "openblas_set_num_threads",
)  # fmt: skip


class Blas(NamedTuple):
    """A BLAS library in this process.

    Attributes:
        path: its file.
        integers: `i32` or `i64`.
        addresses: of `sgemm` and `dgemm` (the C interface).
    """

    path: str
    integers: str
    addresses: dict[str, int]


def chosen() -> bool:
    """Whether products of matrices are to run in the BLAS.

    Raises:
        TracemillError: the environment variable names nothing we know.
    """
    value = os.environ.get(VARIABLE, "").strip() or "generated"
    if value not in ("generated", "blas"):
        raise TracemillError(f"{VARIABLE}={value!r}: expected generated or blas")
    return value == "blas"


@functools.cache
def find() -> Blas:
    """The first library with a C interface beside NumPy or SciPy.

    Raises:
        TracemillError: there is none.
    """
    for path in _candidates():
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix, integers in _NAMES:
            names = {kind: f"{prefix}cblas_{kind}{suffix}" for kind in ("sgemm", "dgemm")}
            if all(hasattr(library, name) for name in names.values()):
                _one_thread(library)
                found = {kind: _address(library, name) for kind, name in names.items()}
                return Blas(str(path), integers, found)
    raise TracemillError(
        f"{VARIABLE}=blas: found no BLAS with a C interface beside NumPy or SciPy",
        hint=f"install NumPy from its wheels, which bring OpenBLAS, or unset {VARIABLE}",
    )


def address(symbol: str) -> int:
    """The address behind one of `SYMBOLS`.

    Raises:
        TracemillError: there is no BLAS, or its integers are of another width.
    """
    _, _, kind, integers = symbol.split("_")
    library = find()
    if library.integers != integers:
        raise TracemillError(f"the BLAS {library.path} has {library.integers} integers, a kernel wants {integers}")
    return library.addresses[kind]


def _candidates() -> Iterator[Path]:
    for package in ("numpy", "scipy"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        home = Path(spec.origin).parent
        for folder in (home.parent / f"{package}.libs", home / ".dylibs", home / ".libs"):
            yield from sorted(folder.glob("*openblas*"))


def _one_thread(library: ctypes.CDLL) -> None:
    for name in _SINGLE:
        if hasattr(library, name):
            getattr(library, name)(1)
            return


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
