"""A character-level transformer language model that learns to write like its corpus.

Run: tracemill run examples/char_lm.py [--data corpus.txt] [--steps 500]
"""

import argparse
import math
import time

import numpy as np
import tracemill as tm
import tracemill.nn.functional as F
from _progress import track
from datasets import text
from tracemill import nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="a text file (default: generated sentences)")
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch", type=int, default=12)
parser.add_argument("--context", type=int, default=64)
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--heads", type=int, default=4)
parser.add_argument("--width", type=int, default=128)
parser.add_argument("--letters", type=int, default=200, help="how much to write after training")
args = parser.parse_args()


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", tm.tril(tm.ones(context, context)) == 0)

    def attend(self, x: tm.Tensor) -> tm.Tensor:
        batch, time_, width = x.shape
        parts = self.qkv(x).view(batch, time_, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(self.mask[:time_, :time_], float("-inf"))
        out = F.softmax(scores, dim=-1) @ v
        return self.proj(out.transpose(1, 2).reshape(batch, time_, width))

    def forward(self, x: tm.Tensor) -> tm.Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharLM(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, args.width)
        self.position = nn.Embedding(args.context, args.width)
        self.blocks = nn.Sequential(
            *[Block(args.width, args.heads, args.context) for _ in range(args.layers)]
        )
        self.norm = nn.LayerNorm(args.width)
        self.head = nn.Linear(args.width, vocabulary)

    def forward(self, tokens: tm.Tensor) -> tm.Tensor:
        x = self.token(tokens) + self.position(tm.arange(tokens.size(1)))
        return self.head(self.norm(self.blocks(x)))


corpus = text(args.data)
alphabet = sorted(set(corpus))
number = {c: i for i, c in enumerate(alphabet)}
data = np.array([number[c] for c in corpus], dtype=np.int64)

tm.manual_seed(0)
rng = np.random.default_rng(0)
model = CharLM(len(alphabet))
optimizer = optim.AdamW(model.parameters(), lr=1e-3)


@tm.compile
def step(x: tm.Tensor, y: tm.Tensor) -> tm.Tensor:
    logits = model(x)
    loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


start, recent = time.perf_counter(), []
for i in track(range(args.steps), "training"):
    at = rng.integers(0, len(data) - args.context - 1, args.batch)
    x = tm.from_numpy(np.stack([data[a : a + args.context] for a in at]))
    y = tm.from_numpy(np.stack([data[a + 1 : a + args.context + 1] for a in at]))
    recent.append(step(x, y).item())
    if (i + 1) % 50 == 0:
        print(f"step {i + 1:5d}  mean loss of the last 50 {np.mean(recent[-50:]):.4f}")
print(f"{time.perf_counter() - start:.1f} s")

model.eval()
tokens = [number[corpus[0]]]
with tm.no_grad():
    for _ in range(args.letters):
        window = tokens[-args.context :]
        padded = tm.tensor([window + [0] * (args.context - len(window))])
        probabilities = F.softmax(model(padded)[0, len(window) - 1], dim=-1)
        tokens.append(int(tm.multinomial(probabilities, 1).item()))
print("".join(alphabet[t] for t in tokens))
