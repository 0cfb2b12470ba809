"""Numba as a front end only: a generated source's entry function → LLVM IR modules, unoptimised.

What the usual `@njit` path adds is left out, because a kernel's compile time is what a user waits for: no
reference counting, no exceptions, no Python wrappers, no NumPy arrays, no execution engine, and contexts that
know numbers, loops, tuples, `math` and our intrinsics but none of NumPy. Measured per kernel: 8 ms instead of
17 ms for typing and lowering, 55 ms instead of 170 ms for the first one of a process.

The calling convention is C's own: the entry function has the kernel ABI, helpers return their result
directly.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types as pytypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import callconv, codegen, compiler, cpu, types
from numba.core import compiler_machinery as machinery
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.errors import NumbaError
from numba.core.typing import context as typing_context
from numba.core.typing import templates
from numba.core.typing.templates import AbstractTemplate

from ...ir.errors import InternalError
from ..collection import no_collection
from . import builtin_lowering, llvm, lowering
from .flags import CompileFlags
from .plain import SOURCE_MODULE
from .stages import Unsuited, compile_stages


@dataclass
class _Library(codegen.CodeLibrary):  # type: ignore[misc]
    """Collects the LLVM modules of one function and the libraries of the helpers it calls."""

    owner: Any
    title: str
    options: CompileFlags
    modules: list[Any] = field(default_factory=list)
    helpers: list[_Library] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.owner, self.title)

    __hash__ = object.__hash__

    def add_ir_module(self, ir_module: Any) -> None:
        self.modules.append(ir_module)

    def add_linking_library(self, library: _Library) -> None:
        if library not in self.helpers:
            self.helpers.append(library)

    def finalize(self) -> None:
        self._finalized = True

    def get_function(self, name: str) -> Any:
        return self.modules[0].get_global(name)

    def get_llvm_str(self) -> str:
        return "\n".join(map(str, self.modules))

    def get_asm_str(self) -> str:
        return ""

    def closure(self) -> list[Any]:
        """The modules of this library and, once each, of all helpers below it."""
        seen: dict[_Library, None] = {}

        def visit(library: _Library) -> None:
            if library not in seen:
                seen[library] = None
                for helper in library.helpers:
                    visit(helper)

        visit(self)
        return [module for library in seen for module in library.modules]


class _Module(ir.Module):  # type: ignore[misc]
    """An LLVM module that keeps its text once it is finished: helpers are linked into many kernels."""

    text: str | None = None

    def __str__(self) -> str:
        return self.text or super().__str__()


class _Codegen:
    """What Numba's lowering asks of a code generator: empty modules. `llvm` optimises and emits."""

    def __init__(self) -> None:
        self.target_data = llvm.target_machine(llvm.target("native")).target_data

    def _create_empty_module(self, name: str) -> Any:
        return _Module(name)


class _DirectCallConv(callconv.BaseCallConv):  # type: ignore[misc]
    """C's calling convention without a status: kernels and helpers cannot raise."""

    def _make_call_helper(self, builder: Any) -> None:
        return None

    def get_return_type(self, ty: Any) -> Any:
        return self.context.data_model_manager[ty].get_return_type()

    def get_function_type(self, restype: Any, argtypes: Any) -> Any:
        return ir.FunctionType(
            self.get_return_type(restype), list(self._get_arg_packer(argtypes).argument_types)
        )

    def decorate_function(self, fn: Any, args: Any, fe_argtypes: Any, noalias: bool = False) -> None:
        self._get_arg_packer(fe_argtypes).assign_names(self.get_arguments(fn), list(args))

    def get_arguments(self, func: Any) -> Any:
        return func.args

    def call_function(self, builder: Any, callee: Any, resty: Any, argtys: Any, args: Any) -> Any:
        result = builder.call(callee, self._get_arg_packer(argtys).as_arguments(builder, args))
        return None, self.context.get_returned_value(builder, resty, result)

    def return_value(self, builder: Any, retval: Any) -> None:
        builder.ret(retval)

    def return_native_none(self, builder: Any) -> None:
        builder.ret(ir.Constant(builder.function.function_type.return_type, None))

    def return_user_exc(
        self, builder: Any, exc: Any, exc_args: Any = None, loc: Any = None, func_name: Any = None
    ) -> None:
        raise InternalError(f"a kernel may not raise {exc and exc.__name__}{exc_args or ''}")


class _NoEnvironment:
    """Stands for the Python environment of a compiled function; kernels have none."""

    env_body = None
    env_ptr = None


_sizes: dict[str, int] = {}
# Implementations of functions and operators by their signatures; Numba looks each up anew, and inspects it.
_lowerings: dict[tuple[Any, Any], Any] = {}


class _Targets(cpu.CPUContext):  # type: ignore[misc]
    """Lowering with a minimum of registries."""

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = _Codegen()

    @property
    def call_conv(self) -> Any:
        return _DirectCallConv(self)

    def mangler(self, name: str, argtypes: Any, *, abi_tags: Any = (), uid: Any = None) -> str:
        digest = hashlib.blake2s(f"{argtypes} {uid}".encode(), digest_size=4).hexdigest()
        return f"{name.rpartition('.')[2]}.{digest}"

    def load_additional_registries(self) -> None:
        from numba.cpython import builtins, mathimpl, numbers, tupleobj  # noqa: F401

        self.install_registry(mathimpl.registry)

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        found: Any = _lowerings.get((fn, sig))
        if found is None:
            found = builtin_lowering.find(fn, sig) or super().get_function(fn, sig, _firstcall)._callable.func
            if "loc" in inspect.signature(found).parameters:
                found = functools.partial(found, loc=None)
            if not _typing.is_helper(fn):
                _lowerings[fn, sig] = found
        sig = sig.as_function()
        return lambda builder, args, loc=None: found(self, builder, sig, args)

    def pair_first(self, builder: Any, val: Any, ty: Any) -> Any:
        return builder.extract_value(val, 0)

    def pair_second(self, builder: Any, val: Any, ty: Any) -> Any:
        return builder.extract_value(val, 1)

    def get_abi_sizeof(self, ty: Any) -> int:
        # Asked for every variable, and llvmlite parses a module for each answer.
        text = str(ty)
        if text not in _sizes:
            _sizes[text] = super().get_abi_sizeof(ty)
        return _sizes[text]

    def post_lowering(self, mod: Any, library: Any) -> None:
        pass

    def declare_env_global(self, module: Any, envname: str) -> None:
        return None

    def get_env_manager(self, builder: Any, return_pyobject: bool = False) -> Any:
        return _NoEnvironment


class _Typing(typing_context.BaseContext):  # type: ignore[misc]
    """Typing with a minimum of registries; a plain Python function is a helper, typed by compiling it."""

    def __init__(self) -> None:
        super().__init__()
        self.options = CompileFlags()
        self.helper_types: dict[Any, Any] = {}
        # Signatures of compiled helpers, by function and argument types: those that all kernels share, and
        # those of the entry being lowered (their accesses belong to its alias groups).
        self.shared_helpers: dict[Any, Any] = {}
        self.own_helpers: dict[Any, Any] = {}
        # Signatures of calls and operators, by function and argument types, for `Inference`.
        self.memo: dict[Any, Any] = {}
        self._operators: dict[Any, Any] = {}

    def is_helper(self, function: Any) -> bool:
        """Whether calls of a function are typed by compiling it."""
        return isinstance(function, types.Function) and function.typing_key in self.helper_types

    def operator_type(self, function: Any) -> Any:
        """The type of an operator function."""
        known = self._operators.get(function)
        if known is None:
            known = self._operators[function] = self.resolve_value_type(function)
        return known

    def _load_builtins(self) -> None:
        from numba.core.typing import builtins  # noqa: F401

        self.install_registry(templates.builtin_registry)

    def load_additional_registries(self) -> None:
        from numba.core.typing import mathdecl

        self.install_registry(mathdecl.registry)

    def install_registry(self, registry: Any) -> None:
        """Install what is new, without `@overload`s (they would start Numba's complete CPU target)."""
        loader = self._registries.get(registry)
        if loader is None:
            loader = self._registries[registry] = templates.RegistryLoader(registry)
        for template in loader.new_registrations("functions"):
            if not issubclass(template, templates._OverloadFunctionTemplate):
                self.insert_function(template(self))
        for template in loader.new_registrations("attributes"):
            if not issubclass(template, templates._OverloadAttributeTemplate):
                self.insert_attributes(template(self))
        for value, kind in loader.new_registrations("globals"):
            if isinstance(kind, types.Function) and all(
                issubclass(template, templates._OverloadFunctionTemplate) for template in kind.templates
            ):
                continue
            known = self._lookup_global(value)
            if known is None:
                self.insert_global(value, kind)
            else:
                merged = known.augment(kind)
                if merged is not None:
                    self._remove_global(value)
                    self._insert_global(value, merged)

    def resolve_value_type(self, val: Any) -> Any:
        callable_global = isinstance(val, (pytypes.FunctionType, pytypes.BuiltinFunctionType, type))
        known = (builtin_lowering.TYPES.get(val) or self._lookup_global(val)) if callable_global else None
        if known is not None:
            return known
        if isinstance(val, pytypes.FunctionType):
            kind = self.helper_types.get(val)
            if kind is None:
                kind = self.helper_types[val] = types.Function(_helper_template(val))
            return kind
        if isinstance(val, type) and issubclass(val, (np.number, np.bool_)):
            return types.NumberClass(_number_type(val))
        if isinstance(val, np.ndarray) and val.ndim == 1:
            return lowering.Table(_number_type(val.dtype.type), val.size)
        return super().resolve_value_type(val)


def _number_type(dtype: type[np.generic]) -> Any:
    return types.boolean if dtype is np.bool_ else getattr(types, np.dtype(dtype).name)


def _helper_template(function: Any) -> type:
    """The typing of a plain Python function called by a kernel: compile it for the argument types."""

    class Helper(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            if kws:
                return None
            kinds = tuple(types.unliteral(arg) for arg in args)
            signatures = _typing.shared_helpers if _sharable(function, kinds) else _typing.own_helpers
            known = signatures.get((function, kinds))
            if known is None:
                known = signatures[function, kinds] = _compile_helper(function, kinds)
            return known

    return Helper


def _sharable(function: Any, args: Any) -> bool:
    """Whether a helper's code is the same for every kernel: one of ours on numbers, say a sine."""
    ours = function.__globals__.get("__name__") != SOURCE_MODULE
    return ours and all(isinstance(arg, (types.Number, types.Boolean, types.BaseTuple)) for arg in args)


class _Pipeline(compiler.CompilerBase):  # type: ignore[misc]
    """The passes that our subset of Python needs, no more."""

    def define_pipelines(self) -> list[Any]:
        manager = machinery.PassManager("kernel")
        for step in (
            untyped.TranslateByteCode,
            untyped.FixupArgs,
            untyped.IRProcessing,
            untyped.GenericRewrites,
            untyped.ReconstructSSA,
            typed.NopythonTypeInference,
            typed.PreLowerStripPhis,
            typed.IRLegalization,
            typed.NativeLowering,
            typed.NoPythonBackend,
        ):
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


def _flags(inline: bool) -> Any:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    if inline:
        flags.forceinline = True
    return flags


_typing = _Typing()
_targets = _Targets(_typing)
_targets.error_model = callconv.create_error_model("numpy", _targets)


def _run(function: Any, args: Any, restype: Any, inline: bool) -> tuple[Any, Any, _Library]:
    """Compile a function to LLVM IR: its descriptor, signature and modules."""
    library = _Library(_targets.codegen(), function.__qualname__, _typing.options)
    _typing.refresh()
    _targets.refresh()
    try:
        return *compile_stages(_typing, _targets, function, args, restype, _flags(inline), library), library
    except (Unsuited, NumbaError):  # Numba's own passes say what is wrong with it, if anything is
        library = _Library(_targets.codegen(), function.__qualname__, _typing.options)
    result = compiler.compile_extra(
        _typing,
        _targets,
        function,
        args,
        restype,
        _flags(inline),
        {},
        library=library,
        pipeline_class=_Pipeline,
    )
    return result.fndesc, result.signature, library


def _compile_helper(function: Any, args: Any) -> Any:
    """Compile a helper and make it callable from lowered code; its signature."""
    description, signature, library = _run(function, args, None, inline=True)
    if _sharable(function, args):
        for module in library.modules:
            module.text = str(module)

    def call(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        callee = context.declare_function(builder.module, description)
        context.active_code_library.add_linking_library(library)
        return context.call_conv.call_function(
            builder, callee, description.restype, description.argtypes, values
        )[1]

    known = _targets._defns[function]
    known.versions[:] = [version for version in known.versions if version[0] != args]
    known.append(call, args)
    return signature


def _global_functions(function: Any) -> list[Any]:
    return [value for value in function.__globals__.values() if isinstance(value, pytypes.FunctionType)]


def _register_primitives(function: Any) -> None:
    """Make the primitives that a source uses known to Numba: `register_numba` of a function registers it."""
    for value in _global_functions(function):
        register = getattr(value, "register_numba", None)
        if register is not None:
            register()


@no_collection()
def lower_entry(function: Any, symbol: str, flags: CompileFlags) -> list[Any]:
    """The LLVM modules (llvmlite.ir) of a kernel's entry function and its helpers; the first holds the entry.

    Args:
        function: the entry function of an executed generated source.
        symbol: the name to export it under.
        flags: aliasing of its operands.

    Raises:
        numba.core.errors.NumbaError: the source leaves the subset of Python that kernels may use.
    """
    _typing.options = flags
    _typing.own_helpers.clear()
    _register_primitives(function)
    try:
        description, _, library = _run(function, lowering.ENTRY_TYPES, types.int32, inline=False)
    finally:
        _typing.options = CompileFlags()
        _forget(function)
    modules = library.closure()
    _decorate(modules[0].get_global(description.mangled_name), symbol)
    _attach_alias_metadata(modules, flags)
    return modules


@no_collection()
def lower_function(function: Any, args: Any, restype: Any, symbol: str) -> list[Any]:
    """The LLVM modules of a function that is no kernel (any signature, aliasing unknown); the first holds it.

    Raises:
        numba.core.errors.NumbaError: as `lower_entry`.
    """
    _typing.own_helpers.clear()
    description, _, library = _run(function, args, restype, inline=False)
    modules = library.closure()
    _rename(modules[0].get_global(description.mangled_name), symbol)
    return modules


def _forget(entry: Any) -> None:
    """Drop the helpers that a source defined itself: they will never be called by another kernel."""
    for function in _global_functions(entry):
        if function.__globals__ is entry.__globals__:
            _typing.helper_types.pop(function, None)
            _targets._defns.pop(function, None)


def _decorate(function: Any, symbol: str) -> None:
    """Give the entry its exported name and tell LLVM what the ABI promises about its arguments."""
    _rename(function, symbol)
    function.attributes.add("nounwind")
    buffers, extents, _, _, scratch, status = function.args
    for argument in (buffers, extents, scratch, status):
        argument.add_attribute("noalias")
    scratch.attributes.align = 64


def _rename(function: Any, symbol: str) -> None:
    module = function.parent
    module.globals.pop(function.name)
    function.name = symbol
    module.globals[symbol] = function


# Beyond this many groups the metadata (quadratic in it) would cost more than it gains.
_MAX_GROUPS = 96


def _attach_alias_metadata(modules: list[Any], flags: CompileFlags) -> None:
    """Turn the noted accesses into LLVM's scoped no-alias metadata: each group overlaps no other group."""
    in_place = {f"operand{source}": f"operand{target}" for source, target in flags.in_place}

    def scope_name(group: str) -> str:
        group = in_place.get(group, group)
        operand = group.startswith(("operand", "group"))
        return "operands" if operand and not flags.noalias else group

    noted = [(module, lowering.accesses(module)) for module in modules]
    names = sorted({scope_name(group) for _, notes in noted for group in notes})
    if not 2 <= len(names) <= _MAX_GROUPS:
        return
    for module, notes in noted:
        if not notes:
            continue
        domain = module.add_metadata([ir.MetaDataString(module, "tracemill")])
        scopes = {name: module.add_metadata([ir.MetaDataString(module, name), domain]) for name in names}
        for group, instructions in notes.items():
            own = scope_name(group)
            mine = module.add_metadata([scopes[own]])
            others = module.add_metadata([scopes[name] for name in names if name != own])
            for instruction in instructions:
                instruction.set_metadata("alias.scope", mine)
                instruction.set_metadata("noalias", others)
