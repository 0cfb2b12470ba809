"""Types of a kernel's variables in one pass over Numba's IR, in place of Numba's solver.

Generated sources give a variable one type for good. So no constraints need to be solved: statements are visited in
order, each call is resolved by Numba's own templates (and remembered for all later kernels), and a second visit finds
what a loop carries. Where a source is not that simple, `Unsuited` says so and Numba's complete pipeline takes it.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import ir, types
from numba.core.typing import signature

# Visits of all blocks after which types must have settled: values defined behind their use take one each.
_ROUNDS = 4


class Unsuited(Exception):
    """The function needs Numba's complete pipeline."""


class Inference:
    """The types of one function.

    Args:
        context: Numba's typing context; its `memo` keeps resolved calls and its `is_helper` tells which functions are
            typed by compiling them.
        func_ir: Numba's IR of the function.
        args: types of its arguments.

    Attributes:
        typemap: type of every variable; `arg.x` for argument x.
        calltypes: signature of every call and operator.
        restype: what the function returns.
    """

    def __init__(self, context: Any, func_ir: Any, args: tuple[Any, ...], restype: Any) -> None:
        self.context, self.func_ir, self.args = context, func_ir, args
        self.typemap: dict[str, Any] = {f"arg.{n}": t for n, t in zip(func_ir.arg_names, args, strict=True)}
        self.calltypes: dict[Any, Any] = {}
        self.returned: list[Any] = []
        self._settled = True
        self._run()
        self.restype = self._result(restype)

    def _run(self) -> None:
        statements = [s for _, block in sorted(self.func_ir.blocks.items()) for s in block.body]
        for _ in range(_ROUNDS):
            self._settled = True
            for statement in statements:
                self._visit(statement)
            if self._settled:
                break
        else:
            raise Unsuited("types do not settle")
        self.returned = [s.value.name for s in statements if isinstance(s, ir.Return)]

    def _result(self, restype: Any) -> Any:
        """The type returned; the variables that are returned get it, and their casts convert to it."""
        found = {types.unliteral(self.typemap[name]) for name in self.returned}
        if restype is None:
            if len(found) != 1:
                raise Unsuited("several types are returned")
            (restype,) = found
        for name in self.returned:
            self.typemap[name] = restype
        return restype

    def _visit(self, statement: Any) -> None:
        if isinstance(statement, ir.Assign):
            kind = self._value(statement.value)
            if kind is None:
                self._settled = False
            else:
                self._assign(statement.target.name, kind)
        elif isinstance(statement, ir.SetItem):
            kinds = self._known(statement.target, statement.index, statement.value)
            if kinds is not None:
                self.calltypes[statement] = self._call(operator.setitem, kinds)
        elif not isinstance(statement, (ir.Jump, ir.Branch, ir.Return, ir.PopBlock)):
            raise Unsuited(f"statement {type(statement).__name__}")

    def _assign(self, name: str, kind: Any) -> None:
        old = self.typemap.get(name)
        if old is None or old == kind:
            if old is None:
                self.typemap[name] = kind
            return
        plain = types.unliteral(kind)
        if types.unliteral(old) != plain:
            raise Unsuited(f"{name} is of two types")
        if old != plain:  # two literals: the variable is neither
            self.typemap[name] = plain
            self._settled = False

    def _known(self, *variables: Any) -> tuple[Any, ...] | None:
        """The types of variables; None, and another round, if one is not known yet."""
        kinds = tuple(self.typemap.get(v.name) for v in variables)
        if None in kinds:
            self._settled = False
            return None
        return kinds

    def _value(self, value: Any) -> Any:
        """The type of what is assigned; None if it is not known yet."""
        if isinstance(value, ir.Expr):
            return self._expression(value)
        if isinstance(value, ir.Var):
            return self.typemap.get(value.name)
        if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):
            try:
                kind = self.context.resolve_value_type(value.value)
            except ValueError as error:
                raise Unsuited(str(error)) from None
            literal = isinstance(value, ir.Const) and value.use_literal_type and types.maybe_literal(value.value)
            return literal or kind
        if isinstance(value, ir.Arg):
            return self.args[value.index]
        raise Unsuited(f"value {type(value).__name__}")

    def _expression(self, expr: Any) -> Any:
        rule = _RULES.get(expr.op)
        if rule is None:
            raise Unsuited(f"expression {expr.op}")
        return rule(self, expr)

    def _operator(self, expr: Any, function: Any, *operands: Any) -> Any:
        kinds = self._known(*operands)
        if kinds is None:
            return None
        self.calltypes[expr] = found = self._call(function, kinds)
        return found.return_type

    def _call(self, function: Any, kinds: tuple[Any, ...]) -> Any:
        """The signature of a call by Numba's templates."""
        context = self.context
        key = function, kinds
        found = context.memo.get(key)
        if found is None:
            known = function if isinstance(function, (types.Type, str)) else context.resolve_value_type(function)
            found = context.resolve_function_type(known, kinds, {})
            if found is None or found.recvr is not None:
                raise Unsuited(f"call of {function} on {kinds}")
            if not context.is_helper(known):
                context.memo[key] = found
        return found

    # -- expressions ----------------------------------------------------------------------------------------------

    def _called(self, expr: Any) -> Any:
        if expr.kws or expr.vararg is not None or expr.target is not None:
            raise Unsuited("a call with keywords")
        kinds = self._known(expr.func, *expr.args)
        if kinds is None:
            return None
        if not isinstance(kinds[0], types.Callable):
            raise Unsuited(f"call of {kinds[0]}")
        self.calltypes[expr] = found = self._call(kinds[0], kinds[1:])
        return found.return_type

    def _binary(self, expr: Any) -> Any:
        return self._operator(expr, expr.fn, expr.lhs, expr.rhs)

    def _unary(self, expr: Any) -> Any:
        return self._operator(expr, expr.fn, expr.value)

    def _iterated(self, expr: Any) -> Any:
        return self._operator(expr, expr.op, expr.value)

    def _item(self, expr: Any) -> Any:
        return self._operator(expr, operator.getitem, expr.value, expr.index)

    def _static_item(self, expr: Any) -> Any:
        """An element of a tuple."""
        kinds = self._known(expr.value)
        if kinds is None:
            return None
        (kind,) = kinds
        if not isinstance(kind, types.BaseTuple) or not isinstance(expr.index, int):
            raise Unsuited("an element of no tuple")
        self.calltypes[expr] = signature(kind[expr.index], kind, types.intp)
        return kind[expr.index]

    def _attribute(self, expr: Any) -> Any:
        """Something in a module."""
        kinds = self._known(expr.value)
        if kinds is None:
            return None
        found = self.context.resolve_getattr(kinds[0], expr.attr) if isinstance(kinds[0], types.Module) else None
        if found is None:
            raise Unsuited(f"attribute {expr.attr}")
        return found

    def _pair_part(self, expr: Any) -> Any:
        kinds = self._known(expr.value)
        return kinds and (kinds[0].first_type if expr.op == "pair_first" else kinds[0].second_type)

    def _unpacked(self, expr: Any) -> Any:
        kinds = self._known(expr.value)
        if kinds is None:
            return None
        if not isinstance(kinds[0], types.BaseTuple) or len(kinds[0]) != expr.count:
            raise Unsuited("unpacking of no tuple")
        return kinds[0]

    def _tuple(self, expr: Any) -> Any:
        kinds = self._known(*expr.items)
        if kinds is None:
            return None
        if kinds and len(set(kinds)) == 1:
            return types.UniTuple(kinds[0], len(kinds))
        return types.Tuple(kinds)

    def _cast(self, expr: Any) -> Any:
        return self.typemap.get(expr.value.name)


_RULES: dict[str, Any] = {
    "call": Inference._called, "binop": Inference._binary, "inplace_binop": Inference._binary,
    "unary": Inference._unary, "getiter": Inference._iterated, "iternext": Inference._iterated,
    "getitem": Inference._item, "static_getitem": Inference._static_item, "pair_first": Inference._pair_part,
    "pair_second": Inference._pair_part, "exhaust_iter": Inference._unpacked, "build_tuple": Inference._tuple,
    "cast": Inference._cast, "getattr": Inference._attribute,
}  # fmt: skip
