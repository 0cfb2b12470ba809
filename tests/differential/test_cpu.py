"""The same bits whatever instructions the CPU has: one small model's training steps in processes of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tracemill.compiler.contract.tiles import target_isa

STEPS = """
import hashlib
import tracemill as tm
from tracemill import nn
from tracemill.nn import functional as F

tm.manual_seed(3)
tm.set_num_threads(2)


class Model(nn.Module):
    # Convolution, pooling, attention, normalisation, GELU and a loss: every kind of kernel once.
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 20, 3, padding=1)
        self.norm = nn.LayerNorm(20)
        self.qkv = nn.Linear(20, 60)
        self.up, self.down = nn.Linear(20, 70), nn.Linear(70, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv(x).relu(), 2).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).split(20, dim=-1)
        weights = F.softmax(q @ k.transpose(1, 2) / 20**0.5, dim=-1)
        return self.down(F.gelu(self.up(x + weights @ v))).mean(1)


model = Model()
optimizer = tm.optim.Adam(model.parameters(), lr=1e-2)
x, labels = tm.randn(5, 2, 10, 10), tm.arange(5)
for _ in range(3):
    loss = F.cross_entropy(model(x), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
state = hashlib.sha256(loss.detach().numpy().tobytes())
for p in model.parameters():
    state.update(p.detach().numpy().tobytes())
print(loss.item(), state.hexdigest())
"""


def run(cpu: str, cache: Path) -> str:
    env = os.environ | {"TRACEMILL_CPU": cpu, "TRACEMILL_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", STEPS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loss, digest = done.stdout.split()
    assert np.isfinite(float(loss))
    return digest


def test_widths_of_vectors_do_not_show(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACEMILL_CPU", "native")
    if target_isa() not in ("avx512", "avx2"):
        pytest.skip("this CPU cannot run code for AVX2")
    assert run("x86-64-v3", tmp_path / "cache") == run("native", tmp_path / "cache")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 CPUs")
@pytest.mark.parametrize(
    "cpu,isa", [("x86-64-v4", "avx512"), ("x86-64-v3", "avx2"), ("znver2", "avx2"), ("x86-64-v2", "generic")]
)
def test_instruction_set_follows_the_chosen_cpu(monkeypatch, cpu, isa):
    monkeypatch.setenv("TRACEMILL_CPU", cpu)
    assert target_isa() == isa
