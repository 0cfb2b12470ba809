"""The `Tensor` class: a view over a cell. Operators attach from the `ops_*` modules through the registry."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.build import Builder
from ...ir.dtypes import DType
from ...ir.errors import AutogradError, DTypeError
from ...ir.node import Node
from . import dtypes, version
from .cell import Array, Cell, export, make_alias, materialised
from .device import Device, cpu, no_cuda
from .dtypes import dtype as PublicDType
from .flush import value_of
from .place import here
from .trace import TRACE, after_write, assign, begin, bind_tensor_class, cut, node_of, read
from .views import View, contiguous_strides, root

_new = object.__new__


class Size(tuple[int, ...]):
    """A shape; a tuple that prints as `torch.Size([2, 3])`."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        total = 1
        for extent in self:
            total *= extent
        return total

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __add__(self, other: Any) -> Size:
        return Size(tuple(self) + tuple(other))

    def __getitem__(self, index: Any) -> Any:
        got = tuple.__getitem__(self, index)
        return Size(got) if isinstance(index, slice) else got


class Tensor:
    """A multi-dimensional array whose operators are recorded and run as compiled graphs.

    A tensor shows a cell's memory, whole or through a view chain. Its value is pending until something needs it.
    """

    __slots__ = ("__dict__", "__weakref__", "_cell", "_grad", "_seen", "_shown", "_view")
    __array_priority__ = 1000

    _cell: Cell
    _view: View | None
    _grad: Tensor | None
    _seen: Any  # what `_shown` was derived from: the base's node, or (epoch, version) for a window
    _shown: Any  # the view's node

    def __new__(cls, *args: Any, **kwargs: Any) -> Tensor:
        from .creation import legacy_tensor

        made = legacy_tensor(*args, **kwargs)
        t = _new(cls)
        t._cell, t._view = made._cell, made._view
        t._grad = t._seen = None
        return t

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rlshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __rrshift__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # --- what it is ---------------------------------------------------------------------------------------------------
    @property
    def _shape(self) -> tuple[int, ...]:
        view = self._view
        return self._cell.type.shape if view is None else view.shape  # type: ignore[return-value]

    @property
    def _dtype(self) -> DType:
        return self._cell.type.dtype

    @property
    def shape(self) -> Size:
        """The extents."""
        view = self._view
        return Size(self._cell.type.shape if view is None else view.shape)  # type: ignore[arg-type]

    @property
    def dtype(self) -> PublicDType:
        """The element type."""
        return dtypes.public(self._cell.type.dtype)

    @property
    def device(self) -> Device:
        return cpu

    @property
    def layout(self) -> str:
        return "torch.strided"

    @property
    def ndim(self) -> int:
        return len(self._shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self._shape)

    ndimension = dim

    def size(self, dim: int | None = None) -> Any:
        """All extents, or that of one dimension."""
        shape = self.shape
        if dim is None:
            return shape
        if not -len(shape) <= dim < max(len(shape), 1):
            low, high = -max(len(shape), 1), max(len(shape), 1) - 1
            raise IndexError(f"Dimension out of range (expected to be in range of [{low}, {high}], but got {dim})")
        return shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return self.shape.numel()

    nelement = numel

    def element_size(self) -> int:
        return self._dtype.itemsize

    @property
    def itemsize(self) -> int:
        return self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.numel() * self._dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements."""
        strides = contiguous_strides(self._shape) if self._view is None else self._view.strides
        return strides if dim is None else strides[dim]

    def storage_offset(self) -> int:
        return 0 if self._view is None else self._view.offset

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether elements lie row-major without gaps."""
        return self._view is None or self._view.contiguous

    def data_ptr(self) -> int:
        """Address of the first element (computes the tensor if it is pending)."""
        return int(self._array("data_ptr()").ctypes.data)

    def is_floating_point(self) -> bool:
        return self._dtype.is_float

    def is_complex(self) -> bool:
        return False

    def is_signed(self) -> bool:
        return self._dtype.kind in ("float", "int")

    is_cuda = is_sparse = is_quantized = is_mkldnn = is_meta = is_mps = is_xpu = is_nested = False

    def get_device(self) -> int:
        return -1

    def is_shared(self) -> bool:
        return False

    def is_pinned(self, device: Any = None) -> bool:
        return False

    def is_inference(self) -> bool:
        return False

    @property
    def _version(self) -> int:
        return self._cell.version

    # --- autograd -----------------------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor."""
        return self._cell.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make this leaf require gradients, or no longer."""
        cell = self._cell
        if requires_grad == cell.tracked and (cell.leaf is None) == (not requires_grad):
            return self
        if not self.is_leaf:
            if requires_grad:
                return self
            raise AutogradError("you can only change requires_grad flags of leaf variables. If you want to use a "
                                "computed variable in a subgraph that doesn't require differentiation use "
                                "var_no_grad = var.detach().")
        if requires_grad and not self._dtype.is_float:
            raise AutogradError("only Tensors of floating point dtype can require gradients")
        version.bump()
        if requires_grad:
            self._own_cell()
            cell = self._cell
            cell.tracked, cell.leaf, cell.used = True, weakref.ref(self), False
            if not cell.stale and cell.node is not None:
                cell.node = None  # read before as plain data: the next use is a leaf with a gradient
        else:
            cell.tracked, cell.leaf = False, None
        return self

    def _own_cell(self) -> None:
        """A leaf that requires grad is the only differentiable tensor over its cell."""
        cell = self._cell
        if cell.alias is not None or self._view is not None or cell.last is not None:
            self._cell = _alias(cell)
            self._cell.role, self._cell.name = cell.role, cell.name

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was not computed from others with a history."""
        cell = self._cell
        return not cell.tracked or (cell.leaf is not None and cell.leaf() is self)

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient of a leaf (or of a tensor that `retain_grad()` was called on)."""
        grad = self._grad
        if grad is not None and grad.__class__ is Consumed:
            raise grad.error()
        return grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and value.__class__ is not Consumed:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type(value)}")
            if value._shape != self._shape:
                raise AutogradError(f"assigned grad has data of a different size: {list(value._shape)}, the tensor has "
                                    f"{list(self._shape)}")
        elif TRACE.capture is not None and not TRACE.capture.differentiated:
            TRACE.capture.cleared.add(id(self))
        self._grad = value

    @property
    def grad_fn(self) -> Any:
        """The operator that computed a tensor with a history, else None."""
        from .autograd import grad_fn

        return grad_fn(self)

    @property
    def data(self) -> Tensor:
        """The same memory without history."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if value._dtype is not self._dtype and self._cell.leaf is not None and not value._dtype.is_float:
            raise DTypeError("data set to a tensor that requires gradients must be floating point dtype")
        old = self._cell
        cell = _alias(value._cell)
        cell.tracked, cell.leaf = old.tracked and old.leaf is not None, old.leaf
        cell.role, cell.name = old.role, old.name
        self._cell, self._view, self._seen = cell, value._view, None
        version.bump()

    def detach(self) -> Tensor:
        """The same memory without history."""
        return over(_alias(self._cell), self._view)

    def detach_(self) -> Tensor:
        """Drop this tensor's history in place."""
        if self._view is not None:
            raise AutogradError("Can't detach views in-place. Use detach() instead.")
        cell = self._cell
        if cell.stale and cell.node is not None:
            cell.node = cut(cell.node)
        cell.tracked, cell.leaf, cell.history = False, None, None
        return self

    # --- values -------------------------------------------------------------------------------------------------------
    def _array(self, what: str) -> Array:
        """The value as an array over the cell's memory, computing it if it is pending."""
        array = value_of(self._cell, what)
        return array if self._view is None else self._view.array(array)

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.numel() != 1:
            raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
        return self._array("item()").item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        array = self._array("tolist()")
        return (array.astype(np.float32) if self._dtype.name == "bf16" else array).tolist()

    def numpy(self, *, force: bool = False) -> Array:
        """The memory as a NumPy array, shared: later writes on either side are seen on the other.

        Raises AutogradError if the tensor requires grad (use `detach()`).
        """
        if self._cell.tracked:
            if not force:
                raise AutogradError("Can't call numpy() on Tensor that requires grad. "
                                    "Use tensor.detach().numpy() instead.")
            return self.detach().numpy()
        if self._dtype.name == "bf16":
            raise DTypeError("Got unsupported ScalarType BFloat16", hint="convert first: x.float().numpy()")
        value_of(self._cell, "numpy()")
        array = export(self._cell)
        return array if self._view is None else self._view.array(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._cell.tracked:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        array = self.numpy() if copy is not True else self._array("numpy()").copy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        if self._cell.tracked:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __bool__(self) -> bool:
        count = self.numel()
        if count != 1:
            word = "no values" if count == 0 else "more than one value"
            raise RuntimeError(f"Boolean value of Tensor with {word} is ambiguous")
        return bool(self._array("bool()").item())

    def __float__(self) -> float:
        return float(self._scalar("float()"))

    def __int__(self) -> int:
        return int(self._scalar("int()"))

    def __complex__(self) -> complex:
        return complex(self._scalar("complex()"))

    def __index__(self) -> int:
        if not (self._dtype.is_integer or self._dtype.is_bool) or self.numel() != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._scalar("index"))

    def _scalar(self, what: str) -> Any:
        if self.numel() != 1:
            raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
        return self._array(what).item()

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a 0-d tensor")
        return self._shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        from .printing import tensor_repr

        return tensor_repr(self)

    def __format__(self, spec: str) -> str:
        if not self._shape:
            return format(self.item(), spec)
        return object.__format__(self, spec) if spec else repr(self)

    def __copy__(self) -> Tensor:
        return over(self._cell, self._view)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise AutogradError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                                "protocol at the moment", hint="use x.detach().clone()")
        if id(self) in memo:
            return memo[id(self)]  # type: ignore[no-any-return]
        copy = _new(type(self))
        copy._cell, copy._view, copy._seen, copy._grad = materialised(self._copy_of(), self._dtype), None, None, None
        copy._cell.role, copy._cell.name = self._cell.role, self._cell.name
        memo[id(self)] = copy
        copy.__dict__.update({k: _deepcopy(v, memo) for k, v in self.__dict__.items()})
        if self._grad is not None:
            copy._grad = _deepcopy(self._grad, memo)
        if self.requires_grad:
            copy.requires_grad_()
        return copy

    def _copy_of(self) -> Array:
        return np.array(self._array("copy"), order="C", copy=True)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.is_leaf:
            raise AutogradError("only leaf tensors can be pickled", hint="use x.detach()")
        array = self._copy_of()
        return (_unpickle, (type(self), array.tobytes(), self._dtype.name, array.shape, self.requires_grad))

    # --- devices ------------------------------------------------------------------------------------------------------
    def cpu(self, memory_format: Any = None) -> Tensor:
        return self

    def cuda(self, device: Any = None, non_blocking: bool = False, memory_format: Any = None) -> Tensor:
        """Raises NotSupportedError: there is no CUDA device."""
        raise no_cuda()

    def pin_memory(self, device: Any = None) -> Tensor:
        return self

    def share_memory_(self) -> Tensor:
        return self


class Parameter(Tensor):
    """A tensor that modules register as a parameter; requires grad unless told otherwise.

    Shares the memory of `data`, as in PyTorch.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = over(materialised(np.empty(0, np.float32), dtypes.default()))
        t: Parameter = _new(cls)
        t._cell, t._view, t._grad, t._seen = _alias(data._cell), data._view, None, None
        t._cell.role = "parameter"
        if requires_grad:
            t.requires_grad_()
        return t

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Consumed(Tensor):
    """Stands for a gradient that a captured step used up."""

    def error(self) -> BaseException:
        return AutogradError("this gradient was consumed by the optimizer step inside a compiled function",
                             hint="call zero_grad() inside the function, or tm.compile(..., keep_grads=True) to read "
                                  "or accumulate gradients afterwards")


def consumed() -> Tensor:
    """A placeholder `.grad` whose reading is an error."""
    return _new(Consumed)


def _deepcopy(value: Any, memo: dict[int, Any]) -> Any:
    import copy

    return copy.deepcopy(value, memo)


def _unpickle(cls: type, data: bytes, name: str, shape: tuple[int, ...], requires_grad: bool) -> Tensor:
    from ...ir.dtypes import dtype

    element = dtype(name)
    array = np.frombuffer(bytearray(data), element.numpy).reshape(shape)
    t: Tensor = _new(cls)
    t._cell, t._view, t._grad, t._seen = materialised(array, element), None, None, None
    return t.requires_grad_() if requires_grad else t


def over(cell: Cell, view: View | None = None) -> Tensor:
    """A tensor over a cell."""
    t: Tensor = _new(Tensor)
    t._cell = cell
    t._view = view
    t._grad = t._seen = None
    return t


def from_array(array: Array, element: DType | None = None, shared: Any = None) -> Tensor:
    """A tensor over an array's memory."""
    if element is None:
        from ...ir.dtypes import from_numpy

        element = from_numpy(array.dtype)
    return over(materialised(array, element, shared))


def _alias(cell: Cell) -> Cell:
    """An untracked cell over the same memory, holding the same value."""
    other = make_alias(cell)
    if cell.stale and cell.node is not None:
        other.node = cut(cell.node) if cell.tracked else cell.node
        TRACE.pending.append(weakref.ref(other))
    return other


def viewed(t: Tensor, *steps: Any) -> Tensor:
    """A tensor over the same memory, further along the view chain."""
    view = t._view
    if view is None:
        view = root(t._cell.type.shape)  # type: ignore[arg-type]
    for step in steps:
        view = view.then(step)
    cell = t._cell
    if cell.tracked:
        if not TRACE.grad:
            cell = _alias(cell)
            return over(cell, view)
        begin((t,))
        made = over(t._cell, view)
        node_of(made)
        return made
    return over(cell, view)


def write(t: Tensor, node: Any, tracked: bool) -> Tensor:
    """Replace a tensor's value in place by a node of its shape and dtype."""
    cell = t._cell
    if cell.tracked and cell.leaf is not None and TRACE.grad:
        what = "a leaf Variable" if t._view is None else "a view of a leaf Variable"
        raise AutogradError(f"{what} that requires grad is being used in an in-place operation.",
                            location=here(2).location, hint="do it under `with tm.no_grad():`")
    if t._view is not None and t._view.steps:
        base = cell.node
        if base is None:
            base = read(cell)
        node = t._view.write(Builder(here(2)), base, node)
    if tracked and not TRACE.grad:
        node = cut(node)
    if not TRACE.grad and cell.tracked and cell.leaf is None:
        node = Node.make("with_value", (read(cell), cut(node)), (), node.place)
    assign(cell, node, tracked)
    after_write(cell)
    return t


def attach(methods: dict[str, Callable[..., Any]]) -> None:
    """Add registered methods to the class."""
    for name, f in methods.items():
        setattr(Tensor, name, f)


bind_tensor_class(over)
