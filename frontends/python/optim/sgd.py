"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from .optimizer import Optimizer, Params, _present, check_at_least_zero, check_lr


class SGD(Optimizer):
    """Gradient descent with optional momentum (Nesterov's too) and weight decay."""

    _rule = "sgd"

    def __init__(self, params: Params, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None) -> None:
        check_lr(lr)
        check_at_least_zero(momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
                                  "differentiable": differentiable, "fused": fused})

    def _flags(self, group: dict[str, Any]) -> list[str]:
        flags = super()._flags(group)
        if _present(group["momentum"]):
            flags.append("momentum")
            if _present(group["dampening"]):
                flags.append("dampening")
        return flags
