"""`nn.Module`: parameters, buffers and children by attribute, calls bracketed by their module scope."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ....ir.errors import NotSupportedError
from .. import device, dtypes, version
from ..autograd import no_grad
from ..place import enter_scope, scope
from ..tensor import Parameter, Tensor
from ..trace import after_zero_grad, model_called
from . import state
from .hooks import RemovableHandle, register

Self = TypeVar("Self", bound="Module")

_PACKAGE = __name__.split(".", 1)[0] + "."
_PLAIN = (int, float, str, bool, type(None), tuple)


class _Paths:
    """Where the modules below a root are found: `id(module) -> "layers.0"`, as of one version of all structures.

    It belongs to one module object: copies start anew. `scope` is the root's own: the class name of a layer or loss of
    this package that is called by itself, so that dumps say what it is; empty for a user's model.
    """

    __slots__ = ("paths", "scope", "stamp")

    def __init__(self) -> None:
        self.stamp = -1
        self.scope = ""
        self.paths: dict[int, str] = {}

    def __deepcopy__(self, memo: Any) -> _Paths:
        return _Paths()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Paths, ())


class _Calls:
    """The root module whose call is running (its paths), and how often any structure has changed."""

    __slots__ = ("paths", "structure")

    def __init__(self) -> None:
        self.paths: dict[int, str] | None = None
        self.structure = 0


_calls = _Calls()


def restructured() -> None:
    """A module, parameter or buffer was added, replaced or taken away somewhere."""
    _calls.structure += 1
    version.bump()


def _differs(old: Any, new: Any) -> bool:
    """Whether a captured function could tell the attribute values apart (tensors are its inputs, not constants)."""
    if old is new:
        return False
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return old._shape != new._shape or old._dtype is not new._dtype
    if isinstance(new, _PLAIN) and old.__class__ is new.__class__:
        return bool(old != new)
    return True


class Module:
    """Base of all layers and models, as `torch.nn.Module`.

    Attributes that are `Parameter`s, modules or registered buffers are found by `parameters()`, `state_dict()` and so
    on. Define `forward`; call the module itself.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _version: int = 1
    dump_patches: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            given = next(iter(kwargs)) if kwargs else None
            raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument '{given}'" if kwargs
                            else f"{type(self).__name__}.__init__() takes 1 positional argument but {len(args) + 1} "
                                 "were given")
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _non_persistent_buffers_set=set(), _modules={},
            _forward_pre_hooks=OrderedDict(), _forward_hooks=OrderedDict(), _state_dict_hooks=OrderedDict(),
            _load_state_dict_pre_hooks=OrderedDict(), _load_state_dict_post_hooks=OrderedDict(), _paths=_Paths())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass defines it."""
        raise NotSupportedError(f'Module [{type(self).__name__}] is missing the required "forward" function',
                                hint="define forward(self, …) in the class")

    # --- calling ------------------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        paths = _calls.paths
        if paths is None:
            return self._call_root(args, kwargs)
        path = paths.get(id(self))
        before = scope() if path is None else enter_scope(path)
        try:
            if self._forward_hooks or self._forward_pre_hooks:
                return self._call_hooked(args, kwargs)
            return self.forward(*args, **kwargs)
        finally:
            enter_scope(before)

    def _call_root(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        model_called()
        table = self.__dict__["_paths"]
        if table.stamp != _calls.structure:
            self._name_parts(table)
        _calls.paths = table.paths
        before = scope()
        if table.scope and not before:
            enter_scope(table.scope)
        try:
            if self._forward_hooks or self._forward_pre_hooks:
                return self._call_hooked(args, kwargs)
            return self.forward(*args, **kwargs)
        finally:
            enter_scope(before)
            _calls.paths = None

    def _name_parts(self, table: _Paths) -> None:
        """Tell every module below its path, every parameter and buffer its name and role."""
        table.paths = {id(m): name for name, m in self.named_modules()}
        table.stamp = _calls.structure
        table.scope = type(self).__name__ if type(self).__module__.startswith(_PACKAGE) and not self._modules else ""
        for name, p in self.named_parameters():
            p._cell.name, p._cell.role = name, "parameter"
        for name, b in self.named_buffers():
            b._cell.name, b._cell.role = name, "state"

    def _call_hooked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            if with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError("forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                                           f"but got {changed}.")
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        done: set[int] = set()
        hooks = self._forward_hooks
        try:
            result = self.forward(*args, **kwargs)
            for key, (hook, with_kwargs, _) in list(hooks.items()):
                done.add(key)
                changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
                if changed is not None:
                    result = changed
            return result
        except Exception:
            for key, (hook, with_kwargs, always) in list(hooks.items()):
                if always and key not in done:  # such a hook runs even if forward failed; the error stays the first
                    hook(*((self, args, kwargs, None) if with_kwargs else (self, args, None)))
            raise

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns, if not None, replaces the arguments."""
        return register(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns, if not None, replaces the output."""
        return register(self._forward_hooks, (hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Raises NotSupportedError; hooks on tensors see gradients."""
        raise NotSupportedError("module backward hooks are not supported",
                                hint="call retain_grad() on the tensor in question and read its .grad after backward()")

    # --- attributes ---------------------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in own:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, own, self._buffers, self._modules)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            if "_modules" not in own:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, own, self._parameters, self._buffers)
            self._modules[name] = value
            restructured()
        else:
            self._set_other(own, name, value)

    def _set_other(self, own: dict[str, Any], name: str, value: Any) -> None:
        for kind, table in (("parameter", "_parameters"), ("child module", "_modules")):
            entries = own.get(table)
            if entries is not None and name in entries:
                if value is not None:
                    wanted = "torch.nn.Parameter or None" if kind == "parameter" else "torch.nn.Module or None"
                    raise TypeError(f"cannot assign '{value.__class__.__name__}' as {kind} '{name}' "
                                    f"({wanted} expected)")
                entries[name] = None
                restructured()
                return
        buffers = own.get("_buffers")
        if buffers is not None and name in buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"cannot assign '{value.__class__.__name__}' as buffer '{name}' "
                                "(torch.Tensor or None expected)")
            old = buffers[name]
            buffers[name] = value
            if value is not None and old is not None:
                value._cell.name, value._cell.role = old._cell.name, "state"
            if _differs(old, value):
                restructured()
            return
        slot = getattr(type(self), name, None)
        if hasattr(slot, "__set__"):
            object.__setattr__(self, name, value)
            return
        if name not in own or _differs(own[name], value):
            version.bump()
        own[name] = value

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in ("_parameters", "_buffers", "_modules"):
            entries = own.get(table)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                self._forget(name, table)
                restructured()
                return
        object.__delattr__(self, name)
        version.bump()

    def _forget(self, name: str, *tables: dict[str, Any]) -> None:
        for table in tables:
            table.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._modules, *self._buffers}
        return sorted(n for n in names if not n[0].isdigit())

    def _check_name(self, kind: str, name: Any, table: dict[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in table and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name. Raises KeyError or TypeError in PyTorch's words."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name("parameter", name, self._parameters)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                                "(torch.nn.Parameter or None required)")
            if not param.is_leaf:
                raise ValueError(f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                                 "created explicitly.")
        self._parameters[name] = param
        restructured()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but no parameter; it is saved with the model if `persistent`."""
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                            "(torch Tensor or None required)")
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)
        restructured()

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self._modules)
        self._modules[name] = module
        restructured()

    register_module = add_module

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path. Raises AttributeError."""
        found = self
        for part in target.split(".") if target else ():
            if not hasattr(found, part):
                raise AttributeError(f"{type(found).__name__} has no attribute `{part}`")
            found = getattr(found, part)
            if not isinstance(found, Module):
                raise AttributeError(f"`{part}` is not an nn.Module")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = owner._parameters.get(name)
        if found is None:
            raise AttributeError(f"{type(owner).__name__} has no parameter `{name}`")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        found = owner._buffers.get(name)
        if found is None:
            raise AttributeError(f"`{name}` is not a buffer")
        return found

    # --- walking ------------------------------------------------------------------------------------------------------
    def named_modules(self, memo: set[Module] | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below with their paths, each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names."""
        memo = set()
        for name, module in self._modules.items():
            if module is not None and module not in memo:
                memo.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children."""
        for _, module in self.named_children():
            yield module

    def _named_members(self, members: Callable[[Module], Any], prefix: str, recurse: bool,
                       remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        memo: set[int] = set()
        walk = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in walk:
            for name, value in members(module):
                if value is None or id(value) in memo:
                    continue
                if remove_duplicate:
                    memo.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, each once."""
        yield from self._named_members(lambda m: m._parameters.items(), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters."""
        for _, p in self.named_parameters(recurse=recurse):
            yield p

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names, each once."""
        yield from self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        for _, b in self.named_buffers(recurse=recurse):
            yield b

    # --- modes and conversions ----------------------------------------------------------------------------------------
    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode here and below (dropout, batch normalisation)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all parameters."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        version.bump()
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop (or zero) the gradients of all parameters."""
        drop_gradients(self.parameters(), set_to_none)

    def apply(self: Self, fn: Callable[[Module], None]) -> Self:
        """Call `fn` on every module below, children first, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace every parameter's and buffer's data by `fn` of it, keeping the objects."""
        with no_grad():
            for p in self.parameters(recurse):
                made = fn(p.detach())
                if made._dtype is not p._dtype:
                    p.data = made
                    if p._grad is not None:
                        p._grad = fn(p._grad.detach())
            modules = self.modules() if recurse else [self]
            for module in modules:
                for name, b in module._buffers.items():
                    if b is not None and (made := fn(b))._dtype is not b._dtype:
                        made._cell.name, made._cell.role = b._cell.name, "state"
                        module._buffers[name] = made
        restructured()
        return self

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Convert floating parameters and buffers to a dtype: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(t)`.

        Raises NotSupportedError for a device that is not the CPU, TypeError for a dtype that is not floating.
        """
        target = kwargs.pop("dtype", None)
        kwargs.pop("non_blocking", None)
        kwargs.pop("memory_format", None)
        where = kwargs.pop("device", None)
        if kwargs:
            raise TypeError(f"to() got an unexpected keyword argument '{next(iter(kwargs))}'")
        for a in args:
            if isinstance(a, Tensor):
                target = a.dtype
            elif isinstance(a, dtypes.dtype):
                target = a
            elif not isinstance(a, bool) and a is not None:
                where = a
        device.check(where)
        if target is None:
            return self
        if not target.is_floating_point:
            raise TypeError("nn.Module.to only accepts floating point or complex dtypes, but got desired "
                            f"dtype={target}")
        return self._apply(lambda t: t.to(target) if t.is_floating_point() else t)

    def type(self: Self, dst_type: Any) -> Self:
        """Convert all parameters and buffers to a dtype."""
        return self._apply(lambda t: t.to(dst_type))

    def float(self: Self) -> Self:
        """Floating parameters and buffers become float32."""
        return self.to(dtypes.float32)

    def double(self: Self) -> Self:
        """Floating parameters and buffers become float64."""
        return self.to(dtypes.float64)

    def half(self: Self) -> Self:
        """Floating parameters and buffers become float16."""
        return self.to(dtypes.float16)

    def bfloat16(self: Self) -> Self:
        """Floating parameters and buffers become bfloat16."""
        return self.to(dtypes.bfloat16)

    def cpu(self: Self) -> Self:
        """The module itself: everything is on the CPU."""
        return self

    def cuda(self: Self, device: Any = None) -> Self:
        """Raises NotSupportedError: there is no CUDA device."""
        raise NotSupportedError("tracemill has no CUDA device here",
                                hint="leave .cuda() out, or guard it by tm.cuda.is_available()")

    def share_memory(self: Self) -> Self:
        """The module itself (kept for scripts that call it)."""
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Accepted and ignored: every module is compiled already."""

    # --- state --------------------------------------------------------------------------------------------------------
    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """All parameters and persistent buffers by dotted name, sharing memory with the model, without history."""
        if args:
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and not prefix else prefix
            keep_vars = args[2] if len(args) > 2 else keep_vars
        return state.collect(self, destination, prefix, keep_vars)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> state.IncompatibleKeys:
        """Copy a state into the model.

        Everything is checked first: on an error the model is unchanged.

        Args:
            strict: missing or unexpected names are an error.
            assign: take over the given tensors instead of copying their values.

        Returns:
            `missing_keys` and `unexpected_keys`.

        Raises:
            CheckpointError: listing every missing name, unexpected name, wrong shape and wrong kind of dtype.
        """
        return state.load(self, state_dict, strict, assign)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        state.save_own(self, destination, prefix, keep_vars)

    def get_extra_state(self) -> Any:
        """What else belongs into the state dict; define together with `set_extra_state`."""
        raise RuntimeError("Reached a code path in Module.get_extra_state() that should never be called.")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise RuntimeError("Reached a code path in Module.set_extra_state() that should never be called.")

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return register(self._state_dict_hooks, hook)

    register_state_dict_post_hook = _register_state_dict_hook

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, metadata, strict, missing, unexpected, errors)` before loading."""
        return register(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading."""
        return register(self._load_state_dict_post_hooks, hook)

    # --- printing -----------------------------------------------------------------------------------------------------
    def _get_name(self) -> str:
        return self.__class__.__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of the layer's text."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): " + indent(repr(module)) for name, module in self._modules.items()]
        body = lines + children
        if not body:
            return f"{self._get_name()}()"
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({lines[0]})"
        return f"{self._get_name()}(\n  " + "\n  ".join(body) + "\n)"

    if TYPE_CHECKING:
        _forward_hooks: OrderedDict[int, Any]
        _forward_pre_hooks: OrderedDict[int, Any]


def indent(text: str) -> str:
    """Lines after the first moved by two spaces."""
    return text.replace("\n", "\n  ")


def drop_gradients(parameters: Any, set_to_none: bool) -> None:
    """`zero_grad`: drop the gradients, or set them to zero; a step that was recorded may then run."""
    for p in parameters:
        grad = p._grad
        if grad is None:
            continue
        if set_to_none:
            p._grad = None
        else:
            grad.requires_grad_(False) if grad.is_leaf else grad.detach_()
            grad.zero_()
    grad = None  # the last gradient too must be gone when the step runs, else it would be one of its outputs
    after_zero_grad()
