"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....ir.dtypes import f32
from ..creation import tensor
from .optimizer import Optimizer, Params, check_lr, present


class SGD(Optimizer):
    """Gradient descent with optional momentum (Nesterov's too) and weight decay."""

    _rule = "sgd"

    def __init__(self, params: Params, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None) -> None:
        check_lr(lr)
        for name, value in (("momentum", momentum), ("weight_decay", weight_decay)):
            if not value >= 0.0:
                raise ValueError(f"Invalid {name} value: {value}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
                                  "differentiable": differentiable, "fused": fused})

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch lays it out: the step counter that dampening needs is implied by the buffer."""
        saved = super().state_dict()
        for state in saved["state"].values():
            state.pop("step", None)
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state. On an error nothing is changed."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if state.get("momentum_buffer") is not None:
                state["step"] = tensor(1.0, dtype=f32)

    def _flags(self, group: dict[str, Any]) -> list[str]:
        flags = super()._flags(group)
        if present(group["momentum"]):
            flags.append("momentum")
            if present(group["dampening"]):
                flags.append("dampening")
        return flags
