"""Tensors from data and from nothing: `tensor`, `zeros`, `arange`, … Factories are recorded, so that constants inside a
step fuse into its kernels; data given by the script is materialised at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import DType, boolean, f32, f64, i64
from ...ir.dtypes import from_numpy as element_of
from ...ir.errors import DTypeError, ShapeError
from ...ir.node import Node
from . import dtypes
from .cell import SHARED
from .device import check
from .nodes import cast, expand
from .ops_shape import ints
from .place import here
from .registry import function, method
from .tensor import Tensor, from_array, over
from .trace import TRACE, apply, begin, number, record, wrap
from .views import View


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    return t.requires_grad_() if requires_grad else t


# --- from data --------------------------------------------------------------------------------------------------------
def _to_array(data: Any, dtype: DType | None) -> tuple[np.ndarray[Any, Any], DType]:
    """A fresh array of the data, with PyTorch's dtype for Python numbers."""
    if isinstance(data, Tensor):
        array = np.array(data._array("tensor()"), order="C", copy=True)
        element = data._dtype
    else:
        data = _unwrap(data)
        try:
            array = np.array(data)
        except ValueError as error:
            raise ShapeError(f"expected sequences of equal length: {error}", location=here(3).location) from None
        if array.dtype == object or array.dtype.kind in "USO":
            raise TypeError(f"new(): invalid data type '{type(_first(data)).__name__}'")
        if isinstance(data, (np.ndarray, np.generic)) or not _holds_python(data):
            element = _known(array)
        elif array.dtype.kind == "f":
            element = dtypes.default()
        elif array.dtype.kind == "b":
            element = boolean
        elif array.size == 0:
            element = dtypes.default()
        else:
            element = i64
    element = dtype or element
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(array.astype(element.numpy, copy=False)).reshape(array.shape), element


def _known(array: np.ndarray[Any, Any]) -> DType:
    try:
        return element_of(array.dtype)
    except KeyError:
        raise DTypeError(f"can't convert np.ndarray of type {array.dtype}. The supported types are: float64, float32, "
                         f"float16, int64, int32, int16, int8, uint64, uint32, uint8, and bool.") from None


def _unwrap(data: Any) -> Any:
    """Nested sequences with their tensors as arrays or numbers."""
    if isinstance(data, Tensor):
        return data._array("tensor()") if data._shape else data.item()
    if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, list, tuple)) for x in data):
        return [_unwrap(x) for x in data]
    return data


def _first(data: Any) -> Any:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return data


def _holds_python(data: Any) -> bool:
    return not isinstance(_first(data), (np.generic, np.ndarray))


@function()
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """A copy of data: numbers, nested sequences, arrays or tensors.

    Python floats become the default dtype, integers int64, bools bool; arrays keep theirs.
    """
    check(device)
    array, element = _to_array(data, None if dtype is None else dtypes.resolve(dtype))
    return _finish(from_array(array, element), requires_grad)


@function("scalar_tensor")
def scalar_tensor(value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A 0-dim tensor of the default dtype."""
    return tensor(value, dtype=dtype or dtypes.get_default_dtype(), device=device)


@function("as_tensor", "asarray")
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """Data as a tensor, sharing memory with tensors and NumPy arrays where the dtype allows."""
    check(device)
    if isinstance(data, Tensor):
        return data if dtype is None or dtypes.resolve(dtype) is data._dtype else data.to(dtype)
    if isinstance(data, np.ndarray):
        t = from_numpy(data)
        return t if dtype is None or dtypes.resolve(dtype) is t._dtype else t.to(dtype)
    return tensor(data, dtype=dtype)


@function()
def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over an array's memory: writes on either side are seen on the other."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    element = _known(array)
    if any(s < 0 for s in array.strides):
        raise ValueError("At least one stride in the given numpy array is negative, and tensors with negative strides "
                         "are not currently supported. (You can probably work around this by making a copy of your "
                         "array  with array.copy().)")
    if not array.dtype.isnative:
        raise DTypeError("given numpy array has byte order different from the native byte order. Conversion between "
                         "byte orders is currently not supported.")
    t = from_array(array, element, SHARED)
    if not array.flags.c_contiguous:
        strides = tuple([s // array.itemsize for s in array.strides])
        t._view = View(array.shape, strides, 0, (), (), False)
    return t


@function()
def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of any object with `__dlpack__`."""
    return from_numpy(np.from_dlpack(ext_tensor))


@function()
def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A 1-D tensor over a buffer's memory."""
    array = np.frombuffer(buffer, dtypes.resolve(dtype).numpy, count, offset)
    return _finish(from_numpy(array), requires_grad)


def legacy_tensor(*args: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`tm.Tensor(2, 3)` (uninitialised) or `tm.Tensor([1, 2])` (a float copy)."""
    element = dtypes.default() if dtype is None else dtypes.resolve(dtype)
    check(device)
    if len(args) == 1 and isinstance(args[0], Tensor):
        return over(args[0]._cell, args[0]._view)
    if (len(args) == 1 and not isinstance(args[0], (int, tuple))) or (
            len(args) == 1 and isinstance(args[0], tuple) and not all(isinstance(x, int) for x in args[0])):
        return tensor(args[0], dtype=element)
    return empty(*args, dtype=element) if args else empty(0, dtype=element)


def _legacy(name: str, element: Any) -> Callable[..., Tensor]:
    class Typed(Tensor):
        def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[misc]
            return legacy_tensor(*args, dtype=element)

    Typed.__name__ = Typed.__qualname__ = name
    Typed.__doc__ = f"Old spelling of a {element.name} tensor."
    return function(name)(Typed)


FloatTensor, DoubleTensor = _legacy("FloatTensor", dtypes.float32), _legacy("DoubleTensor", dtypes.float64)
HalfTensor, LongTensor = _legacy("HalfTensor", dtypes.float16), _legacy("LongTensor", dtypes.int64)
IntTensor, ShortTensor = _legacy("IntTensor", dtypes.int32), _legacy("ShortTensor", dtypes.int16)
ByteTensor, CharTensor = _legacy("ByteTensor", dtypes.uint8), _legacy("CharTensor", dtypes.int8)
BoolTensor = _legacy("BoolTensor", dtypes.bool_)


# --- constants --------------------------------------------------------------------------------------------------------
def _made(fn: Callable[..., Node], args: tuple[Any, ...], requires_grad: bool) -> Tensor:
    begin(())
    return _finish(wrap(record(fn, (), args, False), False), requires_grad)


def _constant(b: Builder, value: Any, dtype: DType, shape: tuple[int, ...]) -> Node:
    return b.full(value, dtype, shape)


def _full(b: Builder, value: Node, shape: tuple[int, ...]) -> Node:
    return expand(b, value, shape)


def _sizes(size: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> tuple[int, ...]:
    shape = ints(size)
    for d in shape:
        if d < 0:
            raise ShapeError(f"Trying to create tensor with negative dimension {d}: {list(shape)}",
                             location=here(3).location)
    return shape


def _element(dtype: Any) -> DType:
    return dtypes.default() if dtype is None else dtypes.resolve(dtype)


@function()
def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
          pin_memory: bool = False, out: Any = None) -> Tensor:
    """A tensor of zeros."""
    check(device)
    d = _element(dtype)
    return _made(_constant, (False if d is boolean else 0, d, _sizes(size)), requires_grad)


@function()
def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
         pin_memory: bool = False, out: Any = None) -> Tensor:
    """A tensor of ones."""
    check(device)
    d = _element(dtype)
    return _made(_constant, (True if d is boolean else 1, d, _sizes(size)), requires_grad)


@function()
def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
          pin_memory: bool = False, memory_format: Any = None, out: Any = None) -> Tensor:
    """A tensor whose content does not matter (zeros, so that runs repeat)."""
    check(device)
    d = _element(dtype)
    shape = _sizes(size)
    if TRACE.barrier is None:
        return _finish(from_array(np.zeros(shape, d.numpy), d), requires_grad)
    return zeros(shape, dtype=d, requires_grad=requires_grad)


@function("full")
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
         layout: Any = None, out: Any = None) -> Tensor:
    """A tensor of one repeated value (a number or a 0-dim tensor)."""
    check(device)
    shape = _sizes((size,)) if not isinstance(size, int) else (size,)
    if isinstance(fill_value, Tensor):
        made = apply(_full, (fill_value if dtype is None else fill_value.to(dtype),), (shape,))
        return _finish(made, requires_grad)
    d = dtypes.number_dtype(fill_value) if dtype is None else dtypes.resolve(dtype)
    begin(())
    value = fill_value.item() if isinstance(fill_value, np.generic) else fill_value
    slot = number(value, d)
    return _finish(wrap(record(_full, (slot,), (shape,), False), False), requires_grad)


def _like(f: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    def like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, layout: Any = None,
             memory_format: Any = None) -> Tensor:
        return f(tuple(input._shape), dtype=input._dtype if dtype is None else dtype, device=device,
                 requires_grad=requires_grad)

    like.__name__, like.__doc__ = name, f"`{f.__name__}` of another tensor's shape and dtype."
    return function(name)(like)


zeros_like, ones_like, empty_like = _like(zeros, "zeros_like"), _like(ones, "ones_like"), _like(empty, "empty_like")


@function()
def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
              layout: Any = None, memory_format: Any = None) -> Tensor:
    """`full` of another tensor's shape and dtype."""
    return full(tuple(input._shape), fill_value, dtype=input._dtype if dtype is None else dtype, device=device,
                requires_grad=requires_grad)


def _new(f: Callable[..., Tensor], name: str) -> None:
    def new(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False,
            **kwargs: Any) -> Tensor:
        return f(*size, dtype=self._dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

    new.__name__, new.__doc__ = name, f"`{f.__name__}` of this tensor's dtype."
    method(name)(new)


_new(zeros, "new_zeros")
_new(ones, "new_ones")
_new(empty, "new_empty")


@method()
def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """`full` of this tensor's dtype."""
    return full(size, fill_value, dtype=self._dtype if dtype is None else dtype, device=device,
                requires_grad=requires_grad)


@method()
def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    """`tensor(data)` of this tensor's dtype."""
    return tensor(data, dtype=self._dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)


@method()
def new(self: Tensor, *args: Any) -> Tensor:
    """The old spelling of `new_empty` and `new_tensor`."""
    return legacy_tensor(*args, dtype=self._dtype)


# --- ranges -----------------------------------------------------------------------------------------------------------
def _arange(b: Builder, count: int, start: Any, step: Any, dtype: DType) -> Node:
    if dtype.is_float:
        wide = f64 if dtype.bits >= 32 else f32
        index = b.cast(b.iota(shape=(count,), axis=0, dtype=i64), dtype=wide)
        return cast(b, b.add(b.mul(index, b.scalar(step, wide)), b.scalar(start, wide)), dtype)
    index = b.iota(shape=(count,), axis=0, dtype=i64)
    if step != 1:
        index = b.mul(index, b.scalar(step, i64))
    if start != 0:
        index = b.add(index, b.scalar(start, i64))
    return cast(b, index, dtype)


@function("arange")
def arange(*args: Any, start: Any = 0, end: Any = None, step: Any = 1, dtype: Any = None, device: Any = None,
           requires_grad: bool = False, layout: Any = None, out: Any = None) -> Tensor:
    """Numbers from `start` up to but without `end`."""
    check(device)
    if len(args) == 1:
        end = args[0]
    elif args:
        start, end, *rest = args
        step = rest[0] if rest else step
    start, end, step = (x.item() if isinstance(x, (Tensor, np.generic)) else x for x in (start, end, step))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * (1 if step > 0 else -1) < 0:
        raise RuntimeError("upper bound and larger bound inconsistent with step sign")
    floats = any(isinstance(x, float) for x in (start, end, step))
    d = (dtypes.default() if floats else i64) if dtype is None else dtypes.resolve(dtype)
    count = math.ceil((end - start) / step)
    return _made(_arange, (count, start, step, d), requires_grad)


@function("range")
def range_(start: Any = 0, end: Any = None, step: Any = 1, **kwargs: Any) -> Tensor:
    """`arange` with `end` included (deprecated, as in PyTorch)."""
    kwargs.setdefault("dtype", dtypes.get_default_dtype())
    return arange(start, start + math.floor((end - start) / step + 1) * step, step, **kwargs)


def _linspace(b: Builder, start: float, end: float, steps: int, dtype: DType) -> Node:
    wide = f64 if dtype.bits == 64 else f32
    if steps == 1:
        return b.full(start, dtype, (1,)) if dtype.is_float else cast(b, b.full(start, wide, (1,)), dtype)
    step = (end - start) / (steps - 1)
    index = b.iota(shape=(steps,), axis=0, dtype=i64)
    up = b.cast(index, dtype=wide)
    down = b.cast(b.sub(b.scalar(steps - 1, i64), index), dtype=wide)
    low = b.add(b.mul(up, b.scalar(step, wide)), b.scalar(start, wide))
    high = b.sub(b.scalar(end, wide), b.mul(down, b.scalar(step, wide)))
    first = b.lt(index, b.scalar(steps // 2, i64))
    return cast(b, b.select(first, low, high), dtype)


@function()
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
             layout: Any = None, out: Any = None) -> Tensor:
    """`steps` numbers evenly spaced from `start` to `end`, both included."""
    check(device)
    start, end = float(start), float(end)
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    if steps == 0:
        return empty(0, dtype=_element(dtype))
    return _made(_linspace, (start, end, int(steps), _element(dtype)), requires_grad)


@function()
def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """Powers of `base` with exponents evenly spaced."""
    exponents = linspace(start, end, steps, dtype=dtypes.float64, device=device)
    return _finish((base ** exponents).to(_element(dtype)), requires_grad)


def _eye(b: Builder, rows: int, cols: int, dtype: DType) -> Node:
    shape = (rows, cols)
    return cast(b, b.eq(b.iota(shape=shape, axis=0, dtype=i64), b.iota(shape=shape, axis=1, dtype=i64)), dtype)


@function()
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
        layout: Any = None, out: Any = None) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    check(device)
    return _made(_eye, (int(n), int(n if m is None else m), _element(dtype)), requires_grad)


def _triangle_indices(upper: bool) -> Callable[..., Tensor]:
    name = "triu_indices" if upper else "tril_indices"

    def indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
        check(device)
        found = (np.triu_indices if upper else np.tril_indices)(row, offset, col)
        return from_array(np.stack(found).astype(np.int64)).to(dtype or dtypes.int64)  # type: ignore[no-any-return]

    indices.__name__, indices.__doc__ = name, "Row and column indices of a triangle."
    return function(name)(indices)


tril_indices, triu_indices = _triangle_indices(False), _triangle_indices(True)


# --- casts ------------------------------------------------------------------------------------------------------------
def _cast(b: Builder, x: Node, dtype: DType) -> Node:
    return cast(b, x, dtype)


def to_dtype(t: Tensor, element: DType, copy: bool = False) -> Tensor:
    """The tensor as another dtype; itself if it has it."""
    if t._dtype is element:
        return t.clone() if copy else t
    return apply(_cast, (t,), (element,))  # type: ignore[no-any-return]


@method()
def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False,
       memory_format: Any = None) -> Tensor:
    """As another dtype, device (only the CPU), or like another tensor."""
    for a in args:
        if isinstance(a, Tensor):
            dtype = a._dtype
        elif isinstance(a, (dtypes.dtype, DType)) or (isinstance(a, type) and a in (int, float, bool)):
            dtype = a
        elif isinstance(a, bool):
            continue
        elif isinstance(a, (str, int)) or type(a).__name__ == "Device":
            device = a
    check(device)
    return to_dtype(self, self._dtype if dtype is None else dtypes.resolve(dtype), copy)


_NAMES = {"Float": "f32", "Double": "f64", "Half": "f16", "BFloat16": "bf16", "Long": "i64", "Int": "i32",
          "Short": "i16", "Char": "i8", "Byte": "u8", "Bool": "bool"}


@method("type")
def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The old name of the dtype (`torch.FloatTensor`), or the tensor as another dtype."""
    if dtype is None:
        return next(f"torch.{k}Tensor" for k, v in _NAMES.items() if v == self._dtype.name)
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.").removeprefix("cuda.").removesuffix("Tensor")
        if name not in _NAMES:
            raise ValueError(f"invalid type: '{dtype}'")
        dtype = _NAMES[name]
        from ...ir.dtypes import dtype as by_name

        return to_dtype(self, by_name(dtype))
    if isinstance(dtype, type) and issubclass(dtype, Tensor):
        return type_(self, f"torch.{dtype.__name__}")
    return to_dtype(self, dtypes.resolve(dtype))


@method()
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """As another tensor's dtype."""
    return to_dtype(self, other._dtype)


def _caster(name: str, target: Any) -> None:
    def convert(self: Tensor, memory_format: Any = None) -> Tensor:
        return to_dtype(self, target.ir)

    convert.__name__, convert.__doc__ = name, f"As {target.name}."
    method(name)(convert)


for _name, _target in (("float", dtypes.float32), ("double", dtypes.float64), ("half", dtypes.float16),
                       ("bfloat16", dtypes.bfloat16), ("long", dtypes.int64), ("int", dtypes.int32),
                       ("short", dtypes.int16), ("char", dtypes.int8), ("byte", dtypes.uint8), ("bool", dtypes.bool_)):
    _caster(_name, _target)


@function()
def is_tensor(obj: Any) -> bool:
    """Whether an object is a tensor."""
    return isinstance(obj, Tensor)


@function()
def is_floating_point(input: Tensor) -> bool:
    """Whether a tensor's dtype is floating."""
    return input._dtype.is_float


@function()
def is_complex(input: Tensor) -> bool:
    return False


@function()
def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not zero."""
    return bool(input)


@function()
def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


@function()
def set_default_tensor_type(t: Any) -> None:
    """The old spelling of `set_default_dtype`."""
    name = t if isinstance(t, str) else t.__name__
    dtypes.set_default_dtype(dtypes.double if "Double" in name else dtypes.float32)

