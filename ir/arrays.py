"""Named arrays in safetensors files: the values beside an `.ir` file. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import DType, dtype, from_numpy
from .errors import CheckpointError

Array = np.ndarray[Any, Any]
_NAMES = {
    "F64": "f64",
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U8": "u8",
    "U32": "u32",
    "U64": "u64",
    "BOOL": "bool",
}
_TAGS = {name: tag for tag, name in _NAMES.items()}


def read_arrays(file: str | Path) -> dict[str, Array]:
    """The tensors of a safetensors file, bfloat16 included.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format.
    """
    from safetensors import SafetensorError, deserialize

    parse: Any = deserialize

    try:
        data = Path(file).read_bytes()
        found = parse(data)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a safetensors file, or is damaged ({error})") from None
    arrays: dict[str, Array] = {}
    for name, spec in found:
        element = _element(file, name, spec["dtype"])
        flat = np.frombuffer(bytes(spec["data"]), dtype=element.numpy)
        arrays[name] = flat.reshape(spec["shape"]).copy()
    return arrays


def _element(file: str | Path, name: str, tag: str) -> DType:
    if tag not in _NAMES:
        raise CheckpointError(f"{file}: tensor {name} has the dtype {tag}, which tracemill lacks")
    return dtype(_NAMES[tag])


def write_arrays(file: str | Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file: complete, or not at all (temporary file, fsync, rename).

    The format is eight bytes of length, a JSON header, and the bytes of the tensors in turn; written here because
    the package's own `serialize` has changed its signature between versions.
    """
    # Wide elements first, as the package does it, so that every tensor lies at a multiple of its element size.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    described: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    chunks, offset = [], 0
    for name in order:
        data = np.ascontiguousarray(arrays[name]).tobytes()
        described[name] = {"dtype": _TAGS[from_numpy(arrays[name].dtype).name], "shape": list(arrays[name].shape),
                           "data_offsets": [offset, offset + len(data)]}
        chunks.append(data)
        offset += len(data)
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = Path(file)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.writelines(chunks)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def header(file: str | Path) -> dict[str, Any]:
    """The JSON header of a safetensors file. Raises CheckpointError."""
    try:
        with open(file, "rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            return json.loads(f.read(length))  # type: ignore[no-any-return]
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from None
