"""Data sets, samplers and the loader."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)


def numbers(n: int = 10) -> TensorDataset:
    return TensorDataset(tm.arange(n).float().reshape(n, 1), tm.arange(n))


def labels(loader: Any) -> list[list[int]]:
    return [batch[1].tolist() for batch in loader]


def test_batches_in_order_with_a_last_partial_one() -> None:
    loader = DataLoader(numbers(), batch_size=4)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader) == 3
    assert labels(DataLoader(numbers(), 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(DataLoader(numbers(), 4, drop_last=True)) == 2
    first = next(iter(loader))
    assert isinstance(first, list)
    assert first[0].shape == (4, 1)


def test_shuffling_repeats_with_the_seed() -> None:
    loader = DataLoader(numbers(100), 32, shuffle=True)
    tm.manual_seed(3)
    first, second = labels(loader), labels(loader)
    tm.manual_seed(3)
    assert labels(loader) == first
    assert first != second
    assert sorted(label for batch in first for label in batch) == list(range(100))


def test_a_loader_may_have_a_generator_of_its_own() -> None:
    def run() -> list[list[int]]:
        return labels(DataLoader(numbers(20), 5, shuffle=True, generator=tm.Generator().manual_seed(1)))

    tm.manual_seed(0)
    before = tm.get_rng_state().tolist()
    assert run() == run()
    assert tm.get_rng_state().tolist() == before


def test_shuffling_is_randperm() -> None:
    tm.manual_seed(5)
    wanted = tm.randperm(17).tolist()
    tm.manual_seed(5)
    assert list(RandomSampler(range(17))) == wanted


def test_batches_do_not_share_memory_with_the_data() -> None:
    data = numbers()
    batch = next(iter(DataLoader(data, 4)))[0]
    batch.zero_()
    assert data.tensors[0][1].item() == 1.0


def test_subsets_are_gathered_whole() -> None:
    part = Subset(Subset(numbers(), [9, 7, 5, 3]), [3, 0])
    assert labels(DataLoader(part, 2)) == [[3, 9]]


def test_random_splits_are_disjoint() -> None:
    a, b = random_split(numbers(), [7, 3], generator=tm.Generator().manual_seed(0))
    assert sorted([*a.indices, *b.indices]) == list(range(10))
    a, b, c = random_split(numbers(), [0.5, 0.3, 0.2])
    assert [len(a), len(b), len(c)] == [5, 3, 2]
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(numbers(), [5, 6])


class Squares(Dataset[Any]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Any:
        if i == 4:
            raise LookupError("sample 4 is broken")
        return {"x": tm.tensor([float(i)]) ** 2, "n": i, "f": i / 2, "a": np.full(2, i), "s": f"#{i}", "t": (i, [i])}


def test_collation_of_nested_samples() -> None:
    batch = next(iter(DataLoader(Squares(), 3)))
    assert batch["x"].tolist() == [[0.0], [1.0], [4.0]]
    assert batch["n"].dtype is tm.int64
    assert batch["f"].dtype is tm.float64
    assert batch["a"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["s"] == ["#0", "#1", "#2"]
    assert batch["t"][0].tolist() == [0, 1, 2]
    assert batch["t"][1][0].tolist() == [0, 1, 2]
    point = namedtuple("point", "x y")
    made = default_collate([point(1, 2.0), point(3, 4.0)])
    assert isinstance(made, point)
    assert made.y.tolist() == [2.0, 4.0]
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([[1, 2], [3]])
    with pytest.raises(TypeError, match="must contain tensors"):
        default_collate([object()])


def test_exceptions_of_a_data_set_pass_unharmed() -> None:
    loader = iter(DataLoader(Squares(), 3, num_workers=2))
    next(loader)
    with pytest.raises(LookupError, match="sample 4 is broken"):
        next(loader)


def test_single_samples_and_collate_functions() -> None:
    assert [x.tolist() for x, _ in DataLoader(numbers(2), None)] == [[0.0], [1.0]]
    assert list(DataLoader([1, 2, 3], 2, collate_fn=sum)) == [3, 3]
    assert [b.tolist() for b in DataLoader([1, 2, 3], 2)] == [[1, 2], [3]]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_iterable_data_sets() -> None:
    assert [b.tolist() for b in DataLoader(Stream(), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Stream(), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(), None)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="IterableDataset: expected unspecified shuffle"):
        DataLoader(Stream(), 2, shuffle=True)
    with pytest.raises(TypeError):
        len(DataLoader(Stream(), 2))


def test_concatenation() -> None:
    both = numbers(3) + numbers(2)
    assert isinstance(both, ConcatDataset)
    assert [both[i][1].item() for i in range(-1, 5)] == [1, 0, 1, 2, 0, 1]
    assert labels(DataLoader(both, 4)) == [[0, 1, 2, 0], [1]]


def test_samplers() -> None:
    assert list(SequentialSampler(range(3))) == [0, 1, 2]
    assert list(BatchSampler(SequentialSampler(range(5)), 2, False)) == [[0, 1], [2, 3], [4]]
    assert len(BatchSampler(SequentialSampler(range(5)), 2, True)) == 2
    assert sorted(SubsetRandomSampler([4, 6, 8])) == [4, 6, 8]
    assert len(list(RandomSampler(range(3), replacement=True, num_samples=50))) == 50
    assert sorted(RandomSampler(range(3), num_samples=6)) == [0, 0, 1, 1, 2, 2]


def test_weighted_sampling() -> None:
    tm.manual_seed(0)
    drawn = list(WeightedRandomSampler([1.0, 0.0, 3.0], 4000))
    assert set(drawn) == {0, 2}
    assert drawn.count(2) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sorted(WeightedRandomSampler([1.0, 0.0, 3.0], 2, replacement=False)) == [0, 2]
    with pytest.raises(ValueError, match="cannot draw 3 samples"):
        WeightedRandomSampler([1.0, 0.0, 3.0], 3, replacement=False)


def test_own_orders() -> None:
    assert labels(DataLoader(numbers(), 2, sampler=[3, 1, 2])) == [[3, 1], [2]]
    assert labels(DataLoader(numbers(), batch_sampler=[[0], [5, 6, 7]])) == [[0], [5, 6, 7]]


@pytest.mark.parametrize(("options", "text"), [
    ({"batch_size": 0}, "batch_size should be a positive integer"),
    ({"sampler": [0], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
    ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
    ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
    ({"num_workers": -1}, "num_workers option should be non-negative"),
    ({"prefetch_factor": 2}, "prefetch_factor option could only be specified"),
])
def test_options_that_exclude_each_other(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DataLoader(numbers(), **options)


def test_tensors_must_have_one_length() -> None:
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(tm.zeros(3), tm.zeros(4))
