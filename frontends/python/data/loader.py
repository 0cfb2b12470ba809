"""`DataLoader`: batches of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..nn.reporting import warn
from ..random import Generator
from ..tensor import Tensor, from_array
from .collate import default_collate, default_convert, materialise
from .dataset import IterableDataset, Subset, TensorDataset
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from .shuffle import Array

Collate = Callable[[Any], Any]


class DataLoader:
    """Iterates over a data set in batches.

    Batches of a `TensorDataset` (or a subset of one) are gathered whole from the tensors' memory. Samples are read
    in this process, whatever `num_workers` says; exceptions of the data set reach the loop unchanged.

    Args:
        batch_size: samples in a batch; None gives single samples.
        shuffle: a new random order in every pass, from `generator` or the global one.
        sampler, batch_sampler: orders of one's own.
        collate_fn: makes a batch of a list of samples.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Sampler[Any] | Iterable[Any] | None = None,
                 batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None, num_workers: int = 0,
                 collate_fn: Collate | None = None, pin_memory: bool = False, drop_last: bool = False,
                 timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Generator | None = None, *,
                 prefetch_factor: int | None = None, persistent_workers: bool = False,
                 pin_memory_device: str = "", in_order: bool = True) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable "
                             "multiprocessing.")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError("prefetch_factor option could only be specified in multiprocessing.let num_workers > 0 to "
                             "enable multiprocessing, otherwise set prefetch_factor to None.")
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        self.dataset, self.num_workers, self.pin_memory = dataset, num_workers, pin_memory
        self.timeout, self.worker_init_fn, self.generator = timeout, worker_init_fn, generator
        self.multiprocessing_context, self.prefetch_factor = multiprocessing_context, prefetch_factor
        self.persistent_workers, self.pin_memory_device, self.in_order = persistent_workers, pin_memory_device, in_order
        self._iterable = isinstance(dataset, IterableDataset)
        self._check_orders(batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None and not self._iterable:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None and not self._iterable:
            assert sampler is not None
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.drop_last = batch_size, drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler
        if collate_fn is None:
            collate_fn = default_collate if self._auto_collation else default_convert
        self.collate_fn = collate_fn

    def _check_orders(self, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any,
                      drop_last: bool) -> None:
        """Raises ValueError for options that exclude each other."""
        if self._iterable:
            for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if value is not None:
                    raise ValueError(f"DataLoader with IterableDataset: expected unspecified {name} option, but got "
                                     f"{name}={value}")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                                 "drop_last")
        elif batch_size is None:
            if drop_last:
                raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with "
                                 "drop_last")
        elif not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")

    @property
    def _auto_collation(self) -> bool:
        return self.batch_size is not None or self.batch_sampler is not None

    def __len__(self) -> int:
        if self._iterable:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self.batch_sampler if self._auto_collation else self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return _Batches(self)


class _Batches:
    """One pass over a loader."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._given = 0
        self._length = _length(loader)
        if loader._iterable:
            self._batches = _of_iterable(loader)
        elif not loader._auto_collation:
            assert loader.sampler is not None
            self._batches = (loader.collate_fn(materialise(loader.dataset[i])) for i in loader.sampler)
        else:
            self._batches = _of_indices(loader)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._given += 1
        if self._loader._iterable and self._length is not None and self._given > self._length:
            warn(f"Length of IterableDataset was reported to be {self._length} (when accessing len(dataloader)), "
                          f"but {self._given} samples have been fetched.")
        return batch


def _length(loader: DataLoader) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


def _of_iterable(loader: DataLoader) -> Iterator[Any]:
    if loader.batch_size is None:
        for sample in loader.dataset:
            yield loader.collate_fn(materialise(sample))
        return
    samples: list[Any] = []
    for sample in loader.dataset:
        samples.append(materialise(sample))
        if len(samples) == loader.batch_size:
            yield loader.collate_fn(samples)
            samples = []
    if samples and not loader.drop_last:
        yield loader.collate_fn(samples)


def _of_indices(loader: DataLoader) -> Iterator[Any]:
    sampler = loader.batch_sampler
    assert sampler is not None
    batches = sampler.arrays() if type(sampler) is BatchSampler else iter(sampler)
    whole = _whole(loader) if loader.collate_fn is default_collate else None
    if whole is not None:
        tensors, places = whole
        for indices in batches:
            yield [_gathered(t, _places(indices, places)) for t in tensors]
        return
    for indices in batches:
        yield loader.collate_fn(_samples(loader.dataset, indices))


def _whole(loader: DataLoader) -> tuple[tuple[Tensor, ...], Array | None] | None:
    """The tensors behind a data set whose batches can be gathered at once, and its indices into them."""
    dataset: Any = loader.dataset
    places: Array | None = None
    while type(dataset) is Subset:
        indices = np.asarray(dataset.indices)
        if indices.dtype.kind not in "iu" or indices.ndim != 1:
            return None
        places = indices if places is None else indices[places]
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or any(t._cell.tracked for t in dataset.tensors):
        return None
    return dataset.tensors, places


def _places(indices: Any, places: Array | None) -> Array:
    found = np.asarray(indices, np.int64)
    return found if places is None else places[found]


def _gathered(t: Tensor, indices: Array) -> Tensor:
    array = t._array("a batch")
    first, count = (int(indices[0]), len(indices)) if len(indices) else (0, 0)
    if count and first >= 0 and int(indices[-1]) - first == count - 1 and np.all(np.diff(indices) == 1):
        return from_array(np.array(array[first:first + count], order="C"), t._dtype)  # a run of rows: one copy
    return from_array(np.ascontiguousarray(array.take(indices, axis=0)), t._dtype)


def _samples(dataset: Any, indices: Any) -> list[Any]:
    listed = indices.tolist() if isinstance(indices, np.ndarray) else list(indices)
    if hasattr(dataset, "__getitems__"):
        return [materialise(sample) for sample in dataset.__getitems__(listed)]
    return [materialise(dataset[i]) for i in listed]


def get_worker_info() -> None:
    """None: samples are read in the main process."""
    return None
