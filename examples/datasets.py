"""Data for the examples: the real files where they are given, generated look-alikes elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


def digits(file: str | None, train: int = 6000, test: int = 1000) -> Arrays:
    """Images f32[N,1,28,28] in 0..1 and labels i64[N], for training and for testing.

    Args:
        file: an `.npz` with `x_train`, `y_train`, `x_test`, `y_test` (MNIST); None generates a look-alike: blurred,
            shifted, noisy seven-segment digits.
    """
    if file is not None:
        with np.load(file, allow_pickle=False) as data:
            parts = [data[k] for k in ("x_train", "y_train", "x_test", "y_test")]
        x_train, y_train, x_test, y_test = parts
        return (_images(x_train), y_train.astype(np.int64), _images(x_test), y_test.astype(np.int64))
    rng = np.random.default_rng(0)
    return (*_segments(rng, train), *_segments(rng, test))


def _images(raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (raw.astype(np.float32) / 255.0)[:, None]


# Segments a to g of the digits 0 to 9.
_LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
_BOX = {
    "a": (4, 6, 9, 19),
    "b": (5, 14, 17, 19),
    "c": (13, 23, 17, 19),
    "d": (21, 23, 9, 19),
    "e": (13, 23, 9, 11),
    "f": (5, 14, 9, 11),
    "g": (13, 15, 9, 19),
}


def _segments(rng: np.random.Generator, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    labels = rng.integers(0, 10, n)
    images = np.zeros((n, 1, 28, 28), np.float32)
    for image, label in zip(images, labels, strict=True):
        for segment in _LIT[label]:
            r0, r1, c0, c1 = _BOX[segment]
            image[0, r0:r1, c0:c1] = rng.uniform(0.6, 1.0)
        image[0] = np.roll(image[0], tuple(rng.integers(-3, 4, 2)), (0, 1))
    images += rng.normal(0, 0.15, images.shape).astype(np.float32)
    return images.clip(0, 1), labels.astype(np.int64)


def text(file: str | None) -> str:
    """A corpus: the file's text, or generated sentences of a small grammar."""
    if file is not None:
        return Path(file).read_text(encoding="utf-8")
    rng = np.random.default_rng(0)
    subject = ["the miller", "a king", "the river", "my cousin", "the old wheel", "a stranger"]
    verb = ["turns", "carries", "forgets", "hears", "follows", "grinds"]
    thing = ["the corn", "a song", "the stone", "his name", "the water", "the night"]
    lines = [f"{rng.choice(subject)} {rng.choice(verb)} {rng.choice(thing)}." for _ in range(6000)]
    return "\n".join(lines)
