"""RMSprop."""

from __future__ import annotations

from typing import Any

from .optimizer import Optimizer, Params, check_lr, present


class RMSprop(Optimizer):
    """RMSprop (Hinton), optionally centred and with momentum."""

    _rule = "rmsprop"

    def __init__(self, params: Params, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False, differentiable: bool = False) -> None:
        check_lr(lr)
        for name, value in (("epsilon", eps), ("momentum", momentum), ("weight_decay", weight_decay),
                            ("alpha", alpha)):
            if not value >= 0.0:
                raise ValueError(f"Invalid {name} value: {value}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
                                  "maximize": maximize, "differentiable": differentiable})

    def _flags(self, group: dict[str, Any]) -> list[str]:
        return super()._flags(group) + (["momentum"] if present(group["momentum"]) else [])
