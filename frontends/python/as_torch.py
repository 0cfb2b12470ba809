"""`--as-torch`: `import torch` means tracemill, for this process and the Python processes it starts.

One import finder answers for `torch` and everything below it with the very same module objects (`torch.nn is
tracemill.nn`), so that isinstance checks and monkey patches see one world. Child processes inherit it through a folder
on PYTHONPATH whose only module, `torch`, installs the finder there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT, TARGET = "torch", __name__.split(".", 1)[0]
# Packages built against PyTorch's own C++ library.
_COMPANIONS = ("torchvision", "torchaudio", "torchtext", "torch_geometric", "torchao", "xformers", "lightning",
               "pytorch_lightning", "triton")
_SHIM = Path(__file__).resolve().parent / "torch_shim"


class _Alias(Loader):
    """Loads a module by giving the one that exists already."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the alias's there


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _COMPANIONS:
            raise ModuleNotFoundError(f"{name} needs the real PyTorch, for which tracemill stands in here (--as-torch)",
                                      name=name)
        if name != ROOT and not name.startswith(ROOT + "."):
            return None
        own = TARGET + name[len(ROOT):]
        if name != ROOT and (not _public(own) or importlib.util.find_spec(own) is None):
            raise ModuleNotFoundError(f"tracemill, which stands in for PyTorch here (--as-torch), has no module {name}",
                                      name=name)
        return ModuleSpec(name, _Alias(own), is_package=True)


def _public(own: str) -> bool:
    """Whether a module is part of the public API, not of the compiler's inside."""
    return not own.split(".")[1].startswith("_") and own.split(".")[1] not in ("ir", "compiler", "runtime", "frontends")


_finder: _Finder | None = None


def install() -> None:
    """Make `import torch` mean tracemill from now on. Calling it again changes nothing.

    Raises:
        ImportError: the real torch is imported already.
    """
    global _finder
    if _finder is not None:
        return
    present: Any = sys.modules.get(ROOT)
    if present is not None and getattr(present, "__name__", "") == ROOT and hasattr(present, "_C"):
        raise ImportError("the real torch is imported already; --as-torch must come first")
    for name in [n for n in sys.modules if n == ROOT or n.startswith(ROOT + ".")]:
        del sys.modules[name]
    _finder = _Finder()
    sys.meta_path.insert(0, _finder)
    inherited = os.environ.get("PYTHONPATH")
    if str(_SHIM) not in (inherited or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = str(_SHIM) + (os.pathsep + inherited if inherited else "")
    if str(_SHIM) not in sys.path:  # multiprocessing hands this very list to the processes it spawns
        sys.path.insert(min(1, len(sys.path)), str(_SHIM))


def uninstall() -> None:
    """Undo `install` (for tests)."""
    global _finder
    if _finder is None:
        return
    sys.meta_path.remove(_finder)
    _finder = None
    for name in [n for n in sys.modules if n == ROOT or n.startswith(ROOT + ".")]:
        del sys.modules[name]
    if str(_SHIM) in sys.path:
        sys.path.remove(str(_SHIM))
    kept = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(_SHIM)]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
