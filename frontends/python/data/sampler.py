"""Samplers: in which order a loader reads a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from ..random import Generator
from ..tensor import Tensor
from .shuffle import Array, integers, permutation, uniform

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Base of samplers: define `__iter__` (over indices) and, if it is known, `__len__`."""

    def __init__(self, data_source: Any = None) -> None:
        super().__init__()

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} must define __iter__")


class _Whole(Sampler[int]):
    """A sampler that knows its whole order at once."""

    def order(self) -> Array:
        """All indices of one pass."""
        return np.empty(0, np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())


class SequentialSampler(_Whole):
    """0, 1, 2, …"""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def order(self) -> Array:
        return np.arange(len(self.data_source))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(_Whole):
    """A random permutation, or draws with replacement."""

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
                 generator: Generator | None = None) -> None:
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self._num_samples = num_samples
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        if not isinstance(self.num_samples, int) or self.num_samples < 0:
            raise ValueError(f"num_samples should be a non-negative integer value, but got num_samples={num_samples}")

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self) -> Array:
        n, count = len(self.data_source), self.num_samples
        if self.replacement:
            return integers(n, count, self.generator)
        if not n:
            return np.empty(0, np.int64)
        passes = [permutation(n, self.generator) for _ in range(-(-count // n))]
        return np.concatenate(passes)[:count] if passes else np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_Whole):
    """Given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def order(self) -> Array:
        return np.asarray(self.indices)[permutation(len(self.indices), self.generator)]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_Whole):
    """Indices drawn with given (unnormalised) probabilities."""

    def __init__(self, weights: Any, num_samples: int, replacement: bool = True,
                 generator: Generator | None = None) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = np.asarray(weights.tolist() if isinstance(weights, Tensor) else list(weights), np.float64)
        if self.weights.ndim != 1:
            raise ValueError("weights should be a 1d sequence but given weights have shape "
                             f"{tuple(self.weights.shape)}")
        if not replacement and num_samples > np.count_nonzero(self.weights > 0):
            raise ValueError(f"cannot draw {num_samples} samples without replacement from "
                             f"{np.count_nonzero(self.weights > 0)} of positive weight")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def order(self) -> Array:
        if self.replacement:
            running = np.cumsum(self.weights)
            last = int(np.flatnonzero(self.weights > 0)[-1])
            drawn = uniform(self.num_samples, self.generator) * running[-1]
            found: Array = np.minimum(np.searchsorted(running, drawn, side="right"), last)
            return found
        # Exponential clocks with the weights as rates ring in the order of a draw without replacement.
        clock = np.full(len(self.weights), np.inf)
        positive = self.weights > 0
        clock[positive] = -np.log1p(-uniform(int(positive.sum()), self.generator)) / self.weights[positive]
        return np.argsort(clock, kind="stable")[: self.num_samples]

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def arrays(self) -> Iterator[Any]:
        """The batches, as arrays where the sampler knows its whole order at once."""
        if not isinstance(self.sampler, _Whole):
            yield from self
            return
        order = self.sampler.order()
        for start in range(0, len(order), self.batch_size):
            batch = order[start:start + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
