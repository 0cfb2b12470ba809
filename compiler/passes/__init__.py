"""Graph passes, and the registry that pipelines (`tracemill opt --passes "cse,dce"`) choose from."""

from __future__ import annotations

from .attention import Attention
from .autodiff import Autodiff
from .base import Pass, format_pass, format_pipeline
from .layout import Layout
from .optimizer import Optimizer
from .replicate import Replicate
from .simplify import Algebraic, Canonicalize, Cse, Dce, Fold, Hoist, Simplify, SinkReshapes
from .windows import Windows


def registry() -> dict[str, type[Pass]]:
    """All passes by name, in the order of the phases."""
    from ..fusion import Fuse  # here: fusion itself uses this package

    passes: tuple[type[Pass], ...] = (
        Attention, Autodiff, Optimizer, Replicate, Simplify, Canonicalize, Fold, Algebraic, Cse, SinkReshapes, Dce,
        Hoist, Layout, Windows, Fuse,
    )
    return {cls.name: cls for cls in passes}


def parse_pipeline(text: str) -> list[Pass]:
    """The passes that a text such as `cse,dce,fuse{max_nodes=40}` names. See `base.parse_pipeline`."""
    from .base import parse_pipeline as parse

    return parse(text, registry())


__all__ = ["Pass", "format_pass", "format_pipeline", "parse_pipeline", "registry"]
