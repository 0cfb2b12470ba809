"""The base of all optimizers: parameter groups, state, and steps that are recorded as one update node per group."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from ....ir.dtypes import f32
from ....ir.errors import CheckpointError
from ....ir.update_rules import UPDATE_RULES, UpdateRule, format_flags
from ..autograd import enable_grad, no_grad
from ..cell import materialised
from ..nn.hooks import RemovableHandle, register
from ..nn.module import drop_gradients
from ..tensor import Tensor, over
from ..trace import TRACE, Hyper, mark_step
from .update import record_update


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Optimizer:
    """Base of all optimizers, with PyTorch's interface.

    A subclass either names a rule (`_rule`) and says what its groups mean (`_flags`, `_hyper`), or defines `step`
    itself on plain tensors, as user-written optimizers do.

    Attributes:
        param_groups: dicts with `params` and the options.
        state: by parameter, a dict of state tensors.
        defaults: options of groups that do not set them.
    """

    _rule = ""

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                            "torch.FloatTensor")
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._hypers: dict[tuple[int, str], Hyper] = {}
        self._stepped = False
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(dict(group))

    # --- groups -------------------------------------------------------------------------------------------------------
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own. Raises TypeError or ValueError in PyTorch's words."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, Tensor):
            params = [params]
        elif isinstance(params, (set, frozenset)):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of "
                            "tensors in sets will change between runs. Please use a list instead.")
        params = list(params)
        names = [p[0] for p in params if isinstance(p, tuple)]
        if names:
            if len(names) != len(params):
                raise ValueError("all optimizer params should be with/without names. Some param names are missing")
            params = [p[1] for p in params]
            param_group["param_names"] = names
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        param_group["params"] = params
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            param_group.setdefault(name, default)
        if len({id(p) for p in params}) != len(params):
            raise ValueError("optimizer contains a parameter group with duplicate parameters; see github.com/pytorch/"
                             "pytorch/issues/40967 for more information")
        taken = {id(p) for group in self.param_groups for p in group["params"]}
        if any(id(p) in taken for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)

    # --- steps --------------------------------------------------------------------------------------------------------
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop (or zero) the gradients of all parameters. A recorded step runs now."""
        drop_gradients((p for group in self.param_groups for p in group["params"]), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: recomputes the loss (and its gradients) first; its result is returned.
        """
        for hook in self._step_pre_hooks.values():
            hook(self, (), {} if closure is None else {"closure": closure})
        self._stepped = True
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        written: list[Any] = []
        mode, TRACE.grad = TRACE.grad, False
        try:
            for index, group in enumerate(self.param_groups):
                self._step_group(index, group, written)
        finally:
            TRACE.grad = mode
        if written:
            mark_step(written)
        for hook in self._step_post_hooks.values():
            hook(self, (), {} if closure is None else {"closure": closure})
        return loss

    def _step_group(self, index: int, group: dict[str, Any], written: list[Any]) -> None:
        params = [p for p in group["params"] if p._grad is not None]
        if not params:
            return
        rule = UPDATE_RULES[self._rule_of(group)]
        flags = self._flags(group)
        names = rule.state_names(flags)
        states = [[self._state_of(p, name, rule, group) for p in params] for name in names]
        hypers = [(self._owner(index, name), self._hyper(group, name)) for name in rule.hypers]
        record_update(rule.name, format_flags(flags), params, [p.grad for p in params], states, hypers)
        written += [p._cell for p in params]

    def _owner(self, index: int, name: str) -> Hyper:
        key = (index, name)
        owner = self._hypers.get(key)
        if owner is None:
            owner = self._hypers[key] = Hyper(name if index == 0 else f"group{index}.{name}",
                                              lambda: self._hyper(self.param_groups[index], name))
        return owner

    def _rule_of(self, group: dict[str, Any]) -> str:
        """The update rule of a group."""
        return self._rule

    def _flags(self, group: dict[str, Any]) -> list[str]:
        """The rule's flags that hold for a group."""
        flags = [flag for flag in ("amsgrad", "maximize", "centered", "nesterov") if group.get(flag)]
        if present(group["weight_decay"]):
            flags.append("wd")
        return flags

    def _hyper(self, group: dict[str, Any], name: str) -> Any:
        """The present value of one of the rule's hyper-parameters."""
        if name in ("beta1", "beta2"):
            return group["betas"][name == "beta2"]
        return group[name]

    def _initial(self, name: str, group: dict[str, Any]) -> float:
        """What a state starts at."""
        return 0.0

    def _state_of(self, p: Tensor, name: str, rule: UpdateRule, group: dict[str, Any]) -> Tensor:
        state = self.state[p]
        found = state.get(name)
        if found is None:
            scalar = name in rule.scalars
            element, shape = (f32, ()) if scalar else (p._dtype, p._shape)
            value = self._initial(name, group)
            found = state[name] = over(materialised(np.full(shape, value, element.numpy), element))
        if found._cell.role != "state":
            found._cell.role = "state"
            found._cell.name = f"{p._cell.name}.{name}" if p._cell.name else name
        return found

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step."""
        return register(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return register(self._step_post_hooks, hook)

    # --- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """State by parameter number and groups with parameter numbers, as PyTorch lays them out."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)] if isinstance(p, Tensor) else p: dict(values) for p, values in self.state.items()}
        return {"state": state, "param_groups": groups}

    @no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state. On an error nothing is changed.

        Raises:
            CheckpointError: groups or state tensors that do not fit this optimizer's parameters.
        """
        groups, saved_groups = self.param_groups, state_dict["param_groups"]
        if len(groups) != len(saved_groups):
            raise CheckpointError("loaded state dict has a different number of parameter groups",
                                  hint="build the optimizer as it was when its state was saved")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved_groups, strict=True)):
            raise CheckpointError("loaded state dict contains a parameter group that doesn't match the size of "
                                  "optimizer's group", hint="build the optimizer as it was when its state was saved")
        by_number = {number: p for group, saved in zip(groups, saved_groups, strict=True)
                     for number, p in zip(saved["params"], group["params"], strict=True)}
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            p = by_number.get(number)
            if p is None:
                state[number] = deepcopy(values)
            else:
                state[p] = {name: self._load_value(p, name, value) for name, value in values.items()}
        renewed = []
        for group, saved in zip(groups, saved_groups, strict=True):
            options = {key: deepcopy(value) for key, value in saved.items() if key != "params"}
            renewed.append({"params": group["params"], **options})
        self.state, self.param_groups = state, renewed

    def _load_value(self, p: Tensor, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return deepcopy(value)
        rule = UPDATE_RULES.get(self._rule)
        if name == "step" or (rule is not None and name in rule.scalars):
            return value.detach().reshape(()).float().clone()
        if rule is not None and name in rule.state_names(rule.flags) and value._shape != p._shape:
            raise CheckpointError(f"loaded state dict: {name} has shape {list(value._shape)}, its parameter "
                                  f"{list(p._shape)}", hint="build the model as it was when its state was saved")
        return value.detach().to(p.dtype).clone()

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._step_pre_hooks, self._step_post_hooks = OrderedDict(), OrderedDict()
        self._hypers, self._stepped = {}, False

    def __repr__(self) -> str:
        lines = [f"{self.__class__.__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += ["", f"Parameter Group {i}"]
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines).replace("(\n\n", "(\n", 1) + "\n)"


def present(value: Any) -> bool:
    """Whether an option is not zero; one that is a tensor always counts."""
    return True if isinstance(value, Tensor) else value != 0


def check_lr(lr: Any) -> None:
    """Raises ValueError for a negative learning rate, or a tensor that is not one number."""
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
    elif not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")


def check_betas(betas: Any) -> None:
    """Raises ValueError for a decay rate outside [0, 1)."""
    for i, beta in enumerate(betas):
        if not isinstance(beta, Tensor) and not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


Params = Iterable[Any]
