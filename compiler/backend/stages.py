"""From a Python function to LLVM IR in four stages: bytecode → Numba's IR → types → LLVM.

Numba does each of them; what stands here leaves out what Numba does between them for programs that may raise, count
references, run in Python again or assign several types to one name: static single assignment and its undoing, dead
variables, rewrites, checks. LLVM makes registers of variables by itself. Measured over the 111 kernels of three models:
55 ms a kernel with Numba's own pipeline, reduced to the passes that are needed, 20 ms with this one.

A function that does not fit (`Unsuited`) goes through Numba's passes.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import bytecode, funcdesc, interpreter, ir, targetconfig
from numba.core import lowering as numba_lowering

from .inference import Inference, Unsuited

__all__ = ["Unsuited", "compile_stages"]


class _Interpreter(interpreter.Interpreter):  # type: ignore[misc]
    """Bytecode → Numba's IR, without the repair of patterns that our sources do not have."""

    def post_process(self, peepholes: Any, func_ir: Any) -> Any:
        return func_ir


def compile_stages(
    typing: Any, targets: Any, function: Any, args: tuple[Any, ...], restype: Any, flags: Any, library: Any
) -> tuple[Any, Any]:
    """Lower a function into `library`; its descriptor and its signature.

    Args:
        typing, targets: Numba's typing and target contexts.
        args, restype: types; None to infer what it returns.
        flags: Numba's compiler flags.

    Raises:
        Unsuited: it needs Numba's own passes; nothing has been added to the library.
    """
    from numba.core.typing import signature

    identity = bytecode.FunctionIdentity.from_function(function)
    func_ir = _Interpreter(identity).interpret(bytecode.ByteCode(identity))
    if func_ir.is_generator or len(args) != func_ir.arg_count:
        raise Unsuited("a generator, or a wrong number of arguments")
    found = Inference(typing, func_ir, args, restype)
    description = funcdesc.PythonFunctionDescriptor.from_specialized_function(
        func_ir, found.typemap, found.restype, found.calltypes, mangler=targets.mangler, inline=flags.forceinline,
        noalias=flags.noalias, abi_tags=()
    )
    with targets.push_code_library(library), targetconfig.ConfigStack().enter(flags.copy()):
        _Lower(targets, library, description, func_ir).lower()
    library.finalize()
    return description, signature(found.restype, *args)


class _Lower(numba_lowering.Lower):  # type: ignore[misc]
    """Numba's IR → LLVM, one statement at a time.

    A variable that is assigned once is the LLVM value itself wherever the assignment surely comes first: in its own
    block, or anywhere behind the function's first block. Others have a stack slot, which LLVM turns into registers.
    """

    def _find_singly_assigned_variable(self) -> None:
        blocks = self.func_ir.blocks
        first = min(blocks)
        entered = {target for block in blocks.values() for target in block.terminator.get_targets()}
        home: dict[str, int] = {}
        slots: set[str] = set()
        for label, block in sorted(blocks.items()):
            for statement in block.body:
                if isinstance(statement, ir.Assign):
                    name = statement.target.name
                    if name in home:
                        slots.add(name)
                    home[name] = label
        everywhere = first not in entered
        for label, block in sorted(blocks.items()):
            seen: set[str] = set()
            for statement in block.body:
                for variable in _reads(statement):
                    name = variable.name
                    here = home[name] == label
                    if not (name in seen if here else everywhere and home[name] == first):
                        slots.add(name)
                if isinstance(statement, ir.Assign):
                    seen.add(statement.target.name)
        self._singly_assigned_vars = home.keys() - slots
        self._blk_local_varmap: dict[str, Any] = {}

    def lower_block(self, block: Any) -> None:
        for statement in block.body:
            self.loc = statement.loc
            if isinstance(statement, ir.Assign):
                kind = self.fndesc.typemap[statement.target.name]
                self.storevar(self.lower_assign(kind, statement), statement.target.name)
            else:
                self.lower_inst(statement)

    def storevar(self, value: Any, name: str, argidx: Any = None) -> None:
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def loadvar(self, name: str) -> Any:
        value = self._blk_local_varmap.get(name)
        return self.builder.load(self.getvar(name)) if value is None else value

    def getvar(self, name: str) -> Any:
        slot = self.varmap.get(name)
        if slot is None:
            kind = self.context.get_value_type(self.fndesc.typemap[name])
            with self.builder.goto_entry_block():
                slot = self.varmap[name] = self.builder.alloca(kind, name=name)
        return slot

    def lower_call(self, resty: Any, expr: Any) -> Any:
        sig = self.fndesc.calltypes[expr]
        kind = self.fndesc.typemap[expr.func.name]
        values = [self._cast_var(a, k) for a, k in zip(expr.args, sig.args, strict=True)]
        result = self.context.get_function(kind, sig)(self.builder, values, self.loc)
        return self.context.cast(self.builder, result, sig.return_type, resty)

    def lower_binop(self, resty: Any, expr: Any, op: Any) -> Any:
        return self._operator(resty, op, (expr.lhs, expr.rhs), self.fndesc.calltypes[expr])

    def lower_getitem(self, resty: Any, expr: Any, value: Any, index: Any, signature: Any) -> Any:
        return self._operator(resty, operator.getitem, (value, index), signature)

    def lower_setitem(self, target: Any, index: Any, value: Any, signature: Any) -> Any:
        return self._operator(signature.return_type, operator.setitem, (target, index, value), signature)

    def _operator(self, resty: Any, op: Any, operands: tuple[Any, ...], signature: Any) -> Any:
        typing = self.context.typing_context
        function = typing.operator_type(op)
        if signature.args not in function._impl_keys:  # resolved for literals only
            function.get_call_type(typing, signature.args, {})
        values = [self._cast_var(v, k) for v, k in zip(operands, signature.args, strict=True)]
        result = self.context.get_function(function, signature)(self.builder, values)
        return self.context.cast(self.builder, result, signature.return_type, resty)

    def _cast_var(self, var: Any, ty: Any) -> Any:
        return self.context.cast(self.builder, self.loadvar(var.name), self.fndesc.typemap[var.name], ty)

    def debug_print(self, msg: str) -> None:
        pass


def _reads(statement: Any) -> list[Any]:
    """The variables that a statement reads."""
    if isinstance(statement, ir.Assign):
        value = statement.value
        if isinstance(value, ir.Var):
            return [value]
        return value.list_vars() if isinstance(value, ir.Expr) else []  # type: ignore[no-any-return]
    return statement.list_vars()  # type: ignore[no-any-return]


