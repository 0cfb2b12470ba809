"""Stands in for PyTorch in processes that were started from `tracemill run --as-torch`."""

import sys

from tracemill.frontends.python.as_torch import install

del sys.modules["torch"]
install()
import torch  # noqa: E402  (the alias of tracemill, which takes this module's place)

sys.modules["torch"] = torch
