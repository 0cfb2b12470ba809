"""State dicts of modules: collecting, checking, loading."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ....ir.errors import CheckpointError
from .. import dtypes
from ..autograd import no_grad
from ..place import location
from ..tensor import Parameter, Tensor

if TYPE_CHECKING:
    from .module import Module

_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


class StateDict(OrderedDict[str, Any]):
    """An ordered dict that also carries the modules' versions, as PyTorch's does."""

    _metadata: dict[str, Any]


def collect(module: Module, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """`Module.state_dict`."""
    if destination is None:
        destination = StateDict()
        destination._metadata = {}
    local = {"version": module._version}
    if hasattr(destination, "_metadata"):
        destination._metadata[prefix[:-1]] = local
    module._save_to_state_dict(destination, prefix, keep_vars)
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in module._state_dict_hooks.values():
        changed = hook(module, destination, prefix, local)
        if changed is not None:
            destination = changed
    return destination


def save_own(module: Module, destination: Any, prefix: str, keep_vars: bool) -> None:
    """The module's own entries, without its children's."""
    for name, value in own_entries(module):
        destination[prefix + name] = value if keep_vars else value.detach()
    if _has_extra(module):
        destination[prefix + _EXTRA] = module.get_extra_state()


def own_entries(module: Module) -> list[tuple[str, Tensor]]:
    """Parameters and persistent buffers of one module."""
    found: list[tuple[str, Tensor]] = [(n, p) for n, p in module._parameters.items() if p is not None]
    hidden = module._non_persistent_buffers_set
    found += [(n, b) for n, b in module._buffers.items() if b is not None and n not in hidden]
    return found


def _has_extra(module: Module) -> bool:
    from .module import Module

    return type(module).get_extra_state is not Module.get_extra_state


def load(module: Module, state_dict: Any, strict: bool, assign: bool) -> IncompatibleKeys:
    """`Module.load_state_dict`: everything is checked before the first write."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    given = StateDict(state_dict)
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    walked = list(_walk(module, ""))
    metadata = getattr(state_dict, "_metadata", None) or {}
    for prefix, part in walked:
        for hook in part._load_state_dict_pre_hooks.values():
            hook(part, given, prefix, metadata.get(prefix[:-1], {}), strict, missing, unexpected, errors)
    writes: list[tuple[Module, str, Tensor, Tensor]] = []
    extras: list[tuple[Module, Any]] = []
    known: set[str] = set()
    for prefix, part in walked:
        for name, target in own_entries(part):
            key = prefix + name
            known.add(key)
            if key not in given:
                missing.append(key)
                continue
            problem = _mismatch(key, given[key], target)
            if problem is None:
                writes.append((part, name, target, given[key]))
            else:
                errors.append(problem)
        if _has_extra(part):
            known.add(prefix + _EXTRA)
            if prefix + _EXTRA in given:
                extras.append((part, given[prefix + _EXTRA]))
            else:
                missing.append(prefix + _EXTRA)
    unexpected += [key for key in given if key not in known]
    _raise(module, missing if strict else [], unexpected if strict else [], errors)
    with no_grad():
        for part, name, target, value in writes:
            _write(part, name, target, value, assign)
    for part, value in extras:
        part.set_extra_state(value)
    result = IncompatibleKeys(missing, unexpected)
    for _, part in walked:
        for hook in part._load_state_dict_post_hooks.values():
            hook(part, result)
    return result


def _walk(module: Module, prefix: str) -> Any:
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.")


def _mismatch(key: str, value: Any, target: Tensor) -> str | None:
    if not isinstance(value, Tensor):
        return (f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                f"checkpoint but received {type(value)}")
    have, want = value._shape, target._shape
    if have != want and not (have == (1,) and want == ()):
        return (f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, the shape in "
                f"current model is {target.shape}.")
    if dtypes.category(value._dtype) != dtypes.category(target._dtype):
        return (f"dtype mismatch for {key}: copying a param with dtype {value.dtype} from checkpoint, the dtype in "
                f"current model is {target.dtype}.")
    return None


def _raise(module: Module, missing: list[str], unexpected: list[str], errors: list[str]) -> None:
    lines = list(errors)
    if unexpected:
        lines.insert(0, "Unexpected key(s) in state_dict: " + ", ".join(f'"{k}"' for k in unexpected) + ". ")
    if missing:
        lines.insert(0, "Missing key(s) in state_dict: " + ", ".join(f'"{k}"' for k in missing) + ". ")
    if lines:
        raise CheckpointError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(lines),
                              location=location(3),
                              hint="the model is unchanged; build it as it was when the state was saved"
                              + (", or pass strict=False to load what fits" if not errors else ""))


def _write(part: Module, name: str, target: Tensor, value: Tensor, assign: bool) -> None:
    if not assign:
        target.copy_(value.detach().reshape(target._shape) if value._shape != target._shape else value.detach())
        return
    if isinstance(target, Parameter):
        made = value if isinstance(value, Parameter) else Parameter(value, requires_grad=target.requires_grad)
        setattr(part, name, made)
    else:
        part._buffers[name] = value
