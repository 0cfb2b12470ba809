"""`save` and `load`: nested dicts, lists, numbers, strings and tensors in a safetensors file.

The tensors are the file's tensors, under their paths (`model.fc.weight`); the tree around them is JSON in the file's
metadata. Loading executes nothing: the file holds numbers and text only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.dtypes import DType
from ...ir.dtypes import dtype as by_name
from ...ir.errors import CheckpointError
from . import device as devices
from . import dtypes
from .place import location
from .registry import function
from .tensor import Parameter, Tensor, from_array

Array = np.ndarray[Any, Any]
_KEY = "tracemill"
_VERSION = 1
# safetensors' names of the element types
_CODES = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I8": "i8", "I16": "i16", "I32": "i32",
          "I64": "i64", "U8": "u8", "U32": "u32", "U64": "u64", "BOOL": "bool"}


# --- the tree ---------------------------------------------------------------------------------------------------------
class _Packer:
    """Turns a tree into JSON values, collecting its tensors; a tensor that occurs twice is stored once."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[Array, DType]] = {}
        self._names: dict[tuple[int, Any], str] = {}
        self._kept: list[Any] = []

    def pack(self, value: Any, path: str) -> Any:
        """The JSON form of a value. Raises CheckpointError for what a checkpoint cannot hold."""
        if value is None or value.__class__ in (bool, str):
            return value
        if value.__class__ is int:
            return value if abs(value) < 1 << 53 else {"$": "int", "v": str(value)}
        if value.__class__ is float:
            return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, (np.ndarray, np.generic)):
            return {"$": "array", **self._array(np.asarray(value), path), "scalar": isinstance(value, np.generic)}
        if isinstance(value, dtypes.dtype):
            return {"$": "dtype", "v": value.ir.name}
        if isinstance(value, devices.Device):
            return {"$": "device", "v": str(value)}
        if isinstance(value, bytes):
            return {"$": "bytes", "v": base64.b64encode(value).decode()}
        return self._container(value, path)

    def _container(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            pairs = [[self.pack(k, f"{path}.key"), self.pack(v, _join(path, k))] for k, v in value.items()]
            return {"$": "odict" if isinstance(value, OrderedDict) else "dict", "v": pairs}
        if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):
            kind = next(k.__name__ for k in (list, tuple, frozenset, set) if isinstance(value, k))
            return {"$": kind, "v": [self.pack(v, _join(path, i)) for i, v in enumerate(value)]}
        if isinstance(value, (bool, int, float, str)):  # subclasses: enumerations, Size and the like
            plain = next(k for k in (bool, int, float, str) if isinstance(value, k))
            return self.pack(plain(value), path)
        raise _refuse(value, path)

    def _tensor(self, t: Tensor, path: str) -> Any:
        cell = t._cell
        key = (id(cell if cell.alias is None else cell.alias), t._view)
        name = self._names.get(key)
        if name is None:
            self._kept.append(cell)
            array = np.ascontiguousarray(t._array("save()")).reshape(t._shape)
            name = self._names[key] = self._add(array, t._dtype, path)
        kind = "parameter" if isinstance(t, Parameter) else "tensor"
        return {"$": kind, "v": name, "grad": bool(t.requires_grad and t.is_leaf)}

    def _array(self, array: Array, path: str) -> dict[str, Any]:
        try:
            element = dtypes.resolve(array.dtype)
        except TypeError:
            raise _refuse(array, path) from None
        return {"v": self._add(np.ascontiguousarray(array).reshape(array.shape), element, path)}

    def _add(self, array: Array, element: DType, path: str) -> str:
        base = name = path or "value"
        count = 1
        while name in self.arrays:
            count += 1
            name = f"{base}#{count}"
        self.arrays[name] = (array, element)
        return name


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _refuse(value: Any, path: str) -> CheckpointError:
    from .nn.module import Module
    from .optim.optimizer import Optimizer

    at = f" (at {path})" if path else ""
    if isinstance(value, (Module, Optimizer)):
        what = "model" if isinstance(value, Module) else "optimizer"
        return CheckpointError(
            f"a whole {type(value).__name__} cannot be saved{at}: files hold numbers, not code", location=location(),
            hint=f"save its state: torch.save({what}.state_dict(), path); to load, build the {what} first, then "
                 f"{what}.load_state_dict(torch.load(path))")
    return CheckpointError(
        f"a {type(value).__name__} cannot be saved{at}", location=location(),
        hint="a checkpoint may hold dicts, lists, tuples, sets, numbers, strings, bytes, None, arrays and tensors")


class _Unpacker:
    """The inverse of `_Packer`."""

    def __init__(self, arrays: Mapping[str, tuple[Array, DType]]) -> None:
        self.arrays = arrays
        self._tensors: dict[str, Tensor] = {}

    def unpack(self, value: Any) -> Any:
        """The value of a JSON form."""
        if not isinstance(value, dict):
            return value
        kind, inner = value["$"], value["v"]
        if kind in ("dict", "odict"):
            pairs = [(self.unpack(k), self.unpack(v)) for k, v in inner]
            return OrderedDict(pairs) if kind == "odict" else dict(pairs)
        if kind in _SEQUENCES:
            return _SEQUENCES[kind]([self.unpack(v) for v in inner])
        if kind in ("tensor", "parameter"):
            return self._tensor(kind, inner, value["grad"])
        if kind == "array":
            array = self.arrays[inner][0]
            return array[()] if value["scalar"] else array
        return _PLAIN[kind](inner)

    def _tensor(self, kind: str, name: str, grad: bool) -> Tensor:
        shared = self._tensors.get(name)
        if shared is None:
            array, element = self.arrays[name]
            shared = self._tensors[name] = from_array(array, element)
            if kind == "tensor" and not grad:
                return shared
        if kind == "parameter":
            return Parameter(shared.detach(), requires_grad=grad)
        return shared.detach().requires_grad_() if grad else shared


_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_PLAIN: dict[str, Any] = {"int": int, "float": float, "bytes": base64.b64decode, "device": devices.Device,
                          "dtype": lambda name: dtypes.public(by_name(name))}


# --- files ------------------------------------------------------------------------------------------------------------
@function()
def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Write a tree of tensors, numbers, strings and containers.

    A file is written beside its place and moved there once it is complete, so that a crash leaves the old one.

    Args:
        f: a path, or a file object open for writing bytes.

    Raises:
        CheckpointError: for objects that a checkpoint cannot hold; whole modules among them.
    """
    packer = _Packer()
    tree = packer.pack(obj, "")
    data = _encode(packer.arrays, {_KEY: json.dumps({"version": _VERSION, "tree": tree})})
    if hasattr(f, "write"):
        f.write(data)
        return
    _write_atomically(Path(os.fspath(f)), data)


def _encode(arrays: Mapping[str, tuple[Array, DType]], metadata: dict[str, str]) -> bytes:
    from safetensors.numpy import save as encode

    return bytes(encode({name: array for name, (array, _) in arrays.items()}, metadata))


def _write_atomically(path: Path, data: bytes) -> None:
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if path.exists():
            with contextlib.suppress(OSError):
                os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@function()
def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None,
         mmap: bool | None = None, **options: Any) -> Any:
    """Read what `save` wrote, or any safetensors file (then a dict of its tensors). Nothing in it is executed.

    Args:
        f: a path, or a file object open for reading bytes.
        map_location: a device; only the CPU.

    Raises:
        CheckpointError: for a damaged file or one of another format. FileNotFoundError: if there is none.
    """
    if map_location is not None and not callable(map_location) and not isinstance(map_location, dict):
        devices.check(map_location)
    if hasattr(f, "read"):
        data, name = f.read(), getattr(f, "name", "the file object")
    else:
        name = os.fspath(f)
        with open(name, "rb") as source:
            data = source.read()
    arrays, metadata = _decode(data, str(name))
    described = metadata.get(_KEY)
    if described is None:
        return {key: from_array(array, element) for key, (array, element) in arrays.items()}
    try:
        header = json.loads(described)
        if header["version"] > _VERSION:
            raise CheckpointError(f"{name} was written by a newer version (format {header['version']})",
                                  location=location(), hint="update tracemill to read it")
        return _Unpacker(arrays).unpack(header["tree"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(str(name), f"its description is invalid ({type(error).__name__}: {error})") from None


def _decode(data: bytes, name: str) -> tuple[dict[str, tuple[Array, DType]], dict[str, str]]:
    """A safetensors file's tensors (writable copies) and metadata, checked by the library."""
    _check_format(data, name)
    from safetensors import SafetensorError, deserialize

    try:
        entries: Any = deserialize(data)  # type: ignore[no-untyped-call]
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8:8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError, UnicodeDecodeError) as error:
        raise _damaged(name, str(error)) from None
    arrays = {}
    for key, entry in entries:
        code = entry["dtype"]
        if code not in _CODES:
            raise CheckpointError(f"{name}: tensor {key!r} has the dtype {code}, which is not supported",
                                  location=location(), hint="save it as float32, for example")
        element = by_name(_CODES[code])
        flat = np.frombuffer(bytearray(entry["data"]), element.numpy)
        if element.is_bool:
            flat = flat.view(np.uint8) != 0  # any byte but 0 and 1 would be neither true nor false
        arrays[key] = (flat.reshape(entry["shape"]), element)
    return arrays, metadata


def _check_format(data: bytes, name: str) -> None:
    """Raises CheckpointError, saying what the file is, unless it may be a safetensors file."""
    if data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        raise CheckpointError(
            f"{name} is a PyTorch checkpoint (pickle), which could execute code when read", location=location(),
            hint="convert it once where PyTorch is installed, by safetensors.torch.save_file(torch.load(path), "
                 "'model.safetensors') for a state dict, then load the .safetensors file")
    if len(data) < 8:
        raise _damaged(name, f"it has only {len(data)} bytes")
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        what = "it is truncated" if data[8:9] == b"{" else "it is not a safetensors file"
        raise _damaged(name, what)


def _damaged(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} cannot be read: {why}", location=location(),
                           hint="use an intact copy; files are those written by torch.save of tracemill, or "
                                "safetensors")

