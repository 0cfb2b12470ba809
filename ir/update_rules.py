"""The optimizers' update rules by name: which numbers they read, which states they keep, in which order.

An `update{rule, n, n_states, flags}` node takes `params…, grads…, states…, hypers…` and gives `params…,
states…`:

- `n` parameters, then their `n` gradients;
- the states grouped by kind, in the order of `state_names(flags)`: the first kind of all parameters, then the
  second;
- the rule's hyper-parameters, always all of them, as rank-0 float64 nodes.

Frontends build such nodes, the optimizer pass expands them; this module is what both agree on: plain data.

Flags are structure (they change the expanded graph), hyper-parameters are numbers (they never do). The flag
`wd` says that the weight decay is not zero and so must be applied; without it `weight_decay` is not read at
all.

>>> UPDATE_RULES["adam"].state_names(("amsgrad",))
('step', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq')
>>> format_flags(("wd", "amsgrad"))
'amsgrad,wd'
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .dtypes import f32
from .errors import AttributeValueError
from .types import TensorType


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """One rule.

    Attributes:
        hypers: names of the hyper-parameters, in input order.
        states: names of the states every parameter has, in input order.
        optional: `(flag, state)`: states that follow, in this order, where the flag is set.
        flags: flags the rule understands.
        scalars: which states are rank-0 float32 counters. The others have their parameter's type.
        doc: what one step does; `g` gradient, `p` parameter, `t` the step counted from 1.
    """

    name: str
    hypers: tuple[str, ...]
    states: tuple[str, ...]
    optional: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    scalars: tuple[str, ...]
    doc: str

    def state_names(self, flags: Collection[str] = ()) -> tuple[str, ...]:
        """Names of the states of one parameter under `flags`, in input order."""
        return self.states + tuple(state for flag, state in self.optional if flag in flags)

    def state_type(self, state: str, param: TensorType) -> TensorType:
        """Type of a state of a parameter of type `param`. By default states start at zero."""
        return TensorType(f32, ()) if state in self.scalars else param


UPDATE_RULES: dict[str, UpdateRule] = {
    rule.name: rule
    for rule in (
        UpdateRule(
            "sgd",
            hypers=("lr", "momentum", "dampening", "weight_decay"),
            states=(),
            optional=(("momentum", "momentum_buffer"), ("dampening", "step")),
            flags=("momentum", "dampening", "nesterov", "maximize", "wd"),
            scalars=("step",),
            doc="""g += weight_decay·p; buffer = momentum·buffer + (1 − dampening)·g; p −= lr·buffer,
        with `nesterov` lr·(g + momentum·buffer). The buffer starts at zero, so its first value is g, as
        PyTorch defines it; only where dampening is not zero (flag `dampening`) the first step has to be told
        apart, by `step`.""",
        ),
        UpdateRule(
            "adam",
            hypers=("lr", "beta1", "beta2", "eps", "weight_decay"),
            states=("step", "exp_avg", "exp_avg_sq"),
            optional=(("amsgrad", "max_exp_avg_sq"),),
            flags=("amsgrad", "maximize", "wd"),
            scalars=("step",),
            doc="""g += weight_decay·p; m = beta1·m + (1 − beta1)·g; v = beta2·v + (1 − beta2)·g²;
        p −= lr/(1 − beta1^t) · m / (√v/√(1 − beta2^t) + eps). `amsgrad` divides by the greatest v so far.""",
        ),
        UpdateRule(
            "adamw",
            hypers=("lr", "beta1", "beta2", "eps", "weight_decay"),
            states=("step", "exp_avg", "exp_avg_sq"),
            optional=(("amsgrad", "max_exp_avg_sq"),),
            flags=("amsgrad", "maximize", "wd"),
            scalars=("step",),
            doc="adam with decoupled decay: p *= 1 − lr·weight_decay first, and g stays as it is.",
        ),
        UpdateRule(
            "rmsprop",
            hypers=("lr", "alpha", "eps", "weight_decay", "momentum"),
            states=("step", "square_avg"),
            optional=(("momentum", "momentum_buffer"), ("centered", "grad_avg")),
            flags=("momentum", "centered", "maximize", "wd"),
            scalars=("step",),
            doc="""g += weight_decay·p; v = alpha·v + (1 − alpha)·g²; d = g / (√v + eps), with
        `centered` √(v − a²) where a = alpha·a + (1 − alpha)·g; p −= lr·d, with `momentum`
        buffer = momentum·buffer + d and p −= lr·buffer.""",
        ),
        UpdateRule(
            "adagrad",
            hypers=("lr", "lr_decay", "eps", "weight_decay"),
            states=("step", "sum"),
            optional=(),
            flags=("maximize", "wd"),
            scalars=("step",),
            doc="""g += weight_decay·p; sum += g²; p −= lr/(1 + (t − 1)·lr_decay) · g / (√sum + eps). PyTorch's
        initial_accumulator_value is the value `sum` starts at.""",
        ),
    )
}


def format_flags(flags: Iterable[str]) -> str:
    """The canonical text of a set of flags: sorted, comma-separated."""
    return ",".join(sorted(set(flags)))


def parse_flags(rule: UpdateRule, text: str) -> tuple[str, ...]:
    """The flags in `text`. Raises AttributeValueError for one the rule lacks, or a senseless combination."""
    flags = tuple(text.split(",")) if text else ()
    for flag in flags:
        if flag not in rule.flags:
            known = ", ".join(rule.flags)
            raise AttributeValueError(f"update rule {rule.name} has no flag {flag!r}; it has {known}")
    if "nesterov" in flags and ("momentum" not in flags or "dampening" in flags):
        raise AttributeValueError("nesterov needs momentum without dampening")
    if rule.name == "sgd" and "dampening" in flags and "momentum" not in flags:
        raise AttributeValueError("dampening needs momentum")
    return flags
