"""The workloads, written once against the API that tracemill and PyTorch share.

`WORKLOADS[name](torch)` returns a step function and its arguments, `torch` being either module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Step = tuple[Callable[..., Any], tuple[Any, ...]]


def linear_regression(torch: Any) -> Step:
    """W1: 100×1, SGD."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 100).unsqueeze(1)
    y = 2 * x + 1
    model = torch.nn.Linear(1, 1)
    criterion = torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def mlp(torch: Any) -> Step:
    """W2: 784-512-512-10, batch 128, Adam."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return _classifier(torch, model, torch.randn(128, 784), torch.optim.Adam(model.parameters(), lr=1e-3))


def cnn(torch: Any) -> Step:
    """W3: conv 1→32→64 3×3, pool, 9216→128→10, batch 64, Adam."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(
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
    return _classifier(torch, model, torch.randn(64, 1, 28, 28), torch.optim.Adam(model.parameters(), lr=1e-3))


def _classifier(torch: Any, model: Any, x: Any, optimizer: Any) -> Step:
    y = torch.randint(0, 10, (x.shape[0],))
    loss_of = torch.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def gpt(torch: Any) -> Step:
    """W4: 4 layers, 4 heads, width 128, T 64, batch 12, vocabulary 65, AdamW."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(0)
    width, heads, context, vocabulary = 128, 4, 64, 65

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.register_buffer("mask", torch.tril(torch.ones(context, context)) == 0)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            parts = self.qkv(self.norm1(x)).view(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            q, k, v = parts[0], parts[1], parts[2]
            scores = (q @ k.transpose(-2, -1) / math.sqrt(width // heads)).masked_fill(self.mask, float("-inf"))
            out = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(n, t, width)
            x = x + self.proj(out)
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position(torch.arange(tokens.size(1)))
            return self.head(self.norm(self.blocks(x)))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randint(0, vocabulary, (12, context)), torch.randint(0, vocabulary, (12, context))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).view(-1, vocabulary), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def lstm(torch: Any) -> Step:
    """W5: LSTM 64→128, T 32, batch 32, Adam."""
    nn = torch.nn
    torch.manual_seed(0)

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    model = Model()
    return _classifier(torch, model, torch.randn(32, 32, 64), torch.optim.Adam(model.parameters(), lr=1e-3))


def resnet20(torch: Any) -> Step:
    """W6: ResNet-20 (He et al., 2015, section 4.2) on 32×32 images, batch 32, SGD with momentum."""
    nn, F = torch.nn, torch.nn.functional
    torch.manual_seed(0)

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

    blocks = []
    for inner, outer, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        blocks += [Block(inner, outer, stride), Block(outer, outer, 1), Block(outer, outer, 1)]
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return _classifier(torch, model, torch.randn(32, 3, 32, 32), optimizer)


def norms(torch: Any) -> Step:
    """W7: LayerNorm–GELU–LayerNorm over [4096, 1024], MSE, SGD."""
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(1024), nn.GELU(), nn.LayerNorm(1024))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.MSELoss()
    x, y = torch.randn(4096, 1024), torch.randn(4096, 1024)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


WORKLOADS: dict[str, Callable[[Any], Step]] = {
    "W1": linear_regression,
    "W2": mlp,
    "W3": cnn,
    "W4": gpt,
    "W5": lstm,
    "W6": resnet20,
    "W7": norms,
}
