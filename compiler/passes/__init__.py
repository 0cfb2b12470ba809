"""Graph passes. `PASSES` is the registry that pipelines (`tracemill opt --passes "cse,dce"`) choose from."""

from __future__ import annotations

from .autodiff import Autodiff
from .base import Pass, format_pass, format_pipeline
from .optimizer import Optimizer
from .replicate import Replicate
from .simplify import Algebraic, Canonicalize, Cse, Dce, Fold, Simplify, SinkReshapes

PASSES: dict[str, type[Pass]] = {cls.name: cls for cls in (
    Autodiff, Optimizer, Replicate, Simplify, Canonicalize, Fold, Algebraic, Cse, SinkReshapes, Dce,
)}


def parse_pipeline(text: str) -> list[Pass]:
    """The passes that a text such as `cse,dce,fuse{max_nodes=40}` names. See `base.parse_pipeline`."""
    from .base import parse_pipeline as parse

    return parse(text, PASSES)


__all__ = ["PASSES", "Pass", "format_pass", "format_pipeline", "parse_pipeline"]
