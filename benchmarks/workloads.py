"""The seven workloads, written once against the API that tracemill and PyTorch share.

`build(name, torch)` makes one from either module. Weights and data come from NumPy, by name and shape alone, so that
every system trains the same model on the same numbers; `jax_workloads.py` has the same models as pure functions.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """A training step and what it runs on.

    Attributes:
        step: `step(x, y)` trains once and returns the loss, a scalar.
        args: the batch.
        model: holds the parameters.
    """

    step: Callable[..., Any]
    args: tuple[Any, ...]
    model: Any


TITLES = {
    "W1": "linear regression 100×1, SGD",
    "W2": "MLP 784-512-512-10, batch 128, Adam",
    "W3": "CNN 1→32→64 3×3, pool, 9216→128→10, batch 64, Adam",
    "W4": "GPT 4 layers, 4 heads, width 128, T 64, batch 12, AdamW",
    "W5": "LSTM 64→128, T 32, batch 32, Adam",
    "W6": "ResNet-20 on 32×32, batch 32, SGD momentum",
    "W7": "LayerNorm–GELU–LayerNorm [4096, 1024], MSE, SGD",
}
NAMES = tuple(TITLES)

# GPT
WIDTH, HEADS, CONTEXT, VOCABULARY, LAYERS = 128, 4, 64, 65, 4
# ResNet-20: channels in, channels out, stride of each block
BLOCKS = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2


# -- numbers ----------------------------------------------------------------------------------------------------------


def weight(name: str, shape: tuple[int, ...]) -> Array:
    """The initial value of a parameter: uniform within 1/√fan-in, norms' scales around 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)
    middle = 1.0 if name.endswith("weight") else 0.0
    return (middle + rng.uniform(-0.02, 0.02, shape)).astype(np.float32)


def batch(name: str, size: int | None = None) -> tuple[Array, Array]:
    """Input and target of a workload, `size` samples (its usual number by default)."""
    rng = np.random.default_rng(7)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def labels(n: int) -> Array:
        return rng.integers(0, 10, n)

    match name:
        case "W1":
            x = np.linspace(-1, 1, size or 100, dtype=np.float32)[:, None]
            return x, 2 * x + 1
        case "W2":
            return normal(size or 128, 784), labels(size or 128)
        case "W3":
            return normal(size or 64, 1, 28, 28), labels(size or 64)
        case "W4":
            shape = size or 12, CONTEXT
            return rng.integers(0, VOCABULARY, shape), rng.integers(0, VOCABULARY, shape)
        case "W5":
            return normal(size or 32, 32, 64), labels(size or 32)
        case "W6":
            return normal(size or 32, 3, 32, 32), labels(size or 32)
        case "W7":
            return normal(size or 4096, 1024), normal(size or 4096, 1024)
    raise KeyError(name)


# -- models -----------------------------------------------------------------------------------------------------------


def linear_regression(torch: Any) -> Any:
    """W1."""
    return torch.nn.Linear(1, 1)


def mlp(torch: Any) -> Any:
    """W2."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn(torch: Any) -> Any:
    """W3."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def gpt(torch: Any) -> Any:
    """W4."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            parts = self.qkv(self.norm1(x)).view(n, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            x = x + self.proj(out.transpose(1, 2).reshape(n, t, WIDTH))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.size(1)))
            return self.head(self.norm(self.blocks(x)))

    return Model()


def lstm(torch: Any) -> Any:
    """W5."""
    nn = torch.nn

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return Model()


def resnet20(torch: Any) -> Any:
    """W6: He et al., 2015, section 4.2, with projections where the shape changes."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(outer)
            self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outer)
            self.short = (
                nn.Sequential(nn.Conv2d(inner, outer, 1, stride=stride, bias=False), nn.BatchNorm2d(outer))
                if stride != 1
                else nn.Identity()
            )

        def forward(self, x: Any) -> Any:
            out = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(out)) + self.short(x))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *[Block(*block) for block in BLOCKS],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def norms(torch: Any) -> Any:
    """W7."""
    nn = torch.nn
    return nn.Sequential(nn.LayerNorm(1024), nn.GELU(), nn.LayerNorm(1024))


_MODELS = dict(zip(NAMES, (linear_regression, mlp, cnn, gpt, lstm, resnet20, norms), strict=True))
RATES = {"W1": 0.01, "W2": 1e-3, "W3": 1e-3, "W4": 1e-3, "W5": 1e-3, "W6": 0.02, "W7": 0.1}
MOMENTUM, DECAY = 0.9, 1e-4


# -- the step ---------------------------------------------------------------------------------------------------------


def build(name: str, torch: Any, *, size: int | None = None, channels_last: bool = False) -> Workload:
    """A workload of `torch`, which is PyTorch or tracemill.

    Args:
        size: samples in the batch.
        channels_last: PyTorch's memory format for convolutions.
    """
    model = _MODELS[name](torch)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(key, tuple(p.shape))))
    x, y = map(torch.tensor, batch(name, size))
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = _optimizer(name, torch, model.parameters())
    loss_of = torch.nn.MSELoss() if name in ("W1", "W7") else torch.nn.CrossEntropyLoss()

    def loss_at(x: Any, y: Any) -> Any:
        out = model(x)
        return loss_of(out.view(-1, VOCABULARY), y.view(-1)) if name == "W4" else loss_of(out, y)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_at(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return Workload(step, (x, y), model)


def _optimizer(name: str, torch: Any, parameters: Any) -> Any:
    rate = RATES[name]
    match name:
        case "W1" | "W7":
            return torch.optim.SGD(parameters, lr=rate)
        case "W6":
            return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=DECAY)
        case "W4":
            return torch.optim.AdamW(parameters, lr=rate)
        case _:
            return torch.optim.Adam(parameters, lr=rate)
