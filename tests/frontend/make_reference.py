"""Records PyTorch's answers to `expressions.py` in `reference.json`; run by hand where PyTorch is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from expressions import ERRORS, GRADIENTS, VALUES, operands, plain


def main(t: Any) -> None:
    """Evaluate everything under the module `t`."""
    found: dict[str, dict[str, Any]] = {"values": {}, "gradients": {}, "errors": {}}
    for e in VALUES:
        found["values"][e] = plain(eval(e, operands(t)))
    for e in GRADIENTS:
        names = operands(t)
        a, b = names["A"].requires_grad_(), names["B"].requires_grad_()
        eval(e, names).backward()
        found["gradients"][e] = [None if x.grad is None else plain(x.grad) for x in (a, b)]
    for e in ERRORS:
        try:
            eval(e, operands(t))
        except Exception as error:
            found["errors"][e] = type(error).__name__
    path = Path(__file__).with_name("reference.json")
    lines = [f"{json.dumps(k)}: {{\n" + ",\n".join(f"{json.dumps(e)}: {json.dumps(v)}" for e, v in part.items()) + "}"
             for k, part in found.items()]
    path.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    import torch

    main(torch)
