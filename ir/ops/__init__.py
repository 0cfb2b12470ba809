"""The operator table, one module per family. Importing this package registers every operator."""

from importlib import import_module
from pathlib import Path

# TEMPORARY while the families land: import what exists.
for _m in ("contraction", "control", "core", "elementwise", "indexing", "movement", "ordering", "random", "reduction", "symbolic", "window"):
    if (Path(__file__).parent / f"{_m}.py").exists():
        import_module(f"{__name__}.{_m}")
