"""Samples to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..creation import as_tensor, tensor
from ..dtypes import float64
from ..ops_join import stack
from ..tensor import Tensor, from_array


def materialise(sample: Any) -> Any:
    """Compute the pending tensors of one sample, so that every sample runs the same small graph."""
    if isinstance(sample, Tensor):
        if sample._cell.stale and not sample._cell.tracked:
            sample._array("a sample of a data set")
    elif isinstance(sample, Mapping):
        for value in sample.values():
            materialise(value)
    elif isinstance(sample, (tuple, list)):
        for value in sample:
            materialise(value)
    return sample


def _stacked(batch: Sequence[Tensor]) -> Tensor:
    """Tensors stacked: at once if their values are known and have no history."""
    first = batch[0]
    plain = all(not t._cell.stale and not t._cell.tracked and t._dtype is first._dtype for t in batch)
    if plain and all(t._shape == first._shape for t in batch):
        return from_array(np.stack([t._array("collate") for t in batch]), first._dtype)
    return stack(list(batch), 0)


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples as one batch: tensors, arrays and numbers are stacked, strings listed, containers taken apart.

    Raises:
        TypeError: for anything else. RuntimeError: for containers of different lengths.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stacked(batch)
    if isinstance(first, np.ndarray):
        if first.dtype.kind in "USO":
            raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
                            f"{first.dtype}")
        return _stacked([as_tensor(x) for x in batch])
    if isinstance(first, np.generic):
        return as_tensor(np.asarray(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        collated = {key: default_collate([sample[key] for sample in batch]) for key in first}
        try:
            return type(first)(collated)  # type: ignore[call-arg]
        except TypeError:
            return collated
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        return [default_collate(column) for column in zip(*batch, strict=True)]
    raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
                    f"{type(first)}")


def default_convert(data: Any) -> Any:
    """Arrays and NumPy numbers inside as tensors; everything else as it is."""
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        return data if array.dtype.kind in "USO" else as_tensor(array)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(x) for x in data))
    if isinstance(data, (tuple, list)):
        return [default_convert(x) for x in data]
    return data
