"""Replication: one step graph per device, with collectives between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir.errors import NotSupportedError
from ...ir.graph import Graph


@dataclass(frozen=True)
class Replicate:
    """The step for `devices` replicas.

    Attributes:
        devices: how many replicas share a batch.
    """

    devices: int = 1

    name: ClassVar[str] = "replicate"

    def run(self, graph: Graph) -> Graph:
        """Raises NotSupportedError for more than one device."""
        if self.devices != 1:
            raise NotSupportedError(f"cannot replicate over {self.devices} devices",
                                    hint="this version runs a step on one device; leave `devices` at 1")
        return graph
