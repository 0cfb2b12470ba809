"""The CPU back end: generated Python source → Numba → LLVM → object code, and the store of kernels.

Modules, in the order a kernel passes them:

- `intrinsics`: what generated sources may use, as plain Python (no Numba).
- `plain`: runs a generated source as plain Python.
- `lowering`, `frontend`: Numba's view of the intrinsics; its front end alone (typing, lowering to LLVM IR).
- `llvm`: target machine, optimisation, object code.
- `numba_cpu`: `compile_source` and `emit`, the entry points.
- `kernel_store`: memory cache, disk cache, compilation, loading.

Nothing here is imported by a warm run but `kernel_store`, which imports the rest when a kernel is missing.
"""
