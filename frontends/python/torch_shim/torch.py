"""Stands in for PyTorch in processes that were started from `tracemill run --as-torch`."""

import sys

from tracemill.frontends.python.as_torch import install

del sys.modules["torch"]
install()
# The alias of tracemill, which takes this module's place.
import torch  # type: ignore[import-not-found]  # noqa: E402

sys.modules["torch"] = torch
