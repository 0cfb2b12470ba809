"""save and load: what comes back, what is refused, what survives a crash."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tracemill as tm
from tracemill import nn, optim
from tracemill.ir.errors import CheckpointError


def test_trees_come_back(tmp_path: Path) -> None:
    tree: dict[Any, Any] = {
        "a": 1, "b": 2.5, "c": None, "d": True, "e": "text", 7: ["list", (1, 2)], "f": OrderedDict(x=1),
        "nan": float("nan"), "inf": -float("inf"), "big": 1 << 80, "bytes": b"\x00\xff", "set": {1, 2},
        "dtype": tm.float16, "device": tm.device("cpu"), "size": tm.zeros(2, 3).shape,
    }
    tm.save(tree, tmp_path / "t.pt")
    back = tm.load(tmp_path / "t.pt")
    assert list(back) == list(tree)
    assert np.isnan(back.pop("nan"))
    tree.pop("nan")
    assert back.pop("size") == (2, 3)
    tree.pop("size")
    assert back == tree
    assert type(back["f"]) is OrderedDict
    assert type(back[7][1]) is tuple


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int8", "int16", "int32", "int64",
                                   "uint8", "bool"])
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    t = tm.tensor([[0, 1, 1], [1, 0, 1]]).to(getattr(tm, dtype))
    tm.save({"t": t, "scalar": t[0, 1], "empty": t[:0]}, tmp_path / "t.pt")
    back = tm.load(tmp_path / "t.pt", map_location="cpu", weights_only=True)
    assert back["t"].dtype is t.dtype
    assert back["t"].float().tolist() == t.float().tolist()
    assert back["scalar"].shape == ()
    assert back["empty"].shape == (0, 3)
    back["t"].zero_()  # loaded memory may be written


def test_shared_tensors_are_kept_once(tmp_path: Path) -> None:
    t = tm.ones(1000)
    tm.save([t, t, t.detach()], tmp_path / "t.pt")
    assert (tmp_path / "t.pt").stat().st_size < 6000
    a, b, _ = tm.load(tmp_path / "t.pt")
    a.add_(1)
    assert b[0].item() == 2.0


def test_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, optim.Optimizer]:
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        return net, optim.Adam(net.parameters(), lr=0.1)

    def train(net: nn.Module, opt: optim.Optimizer, n: int) -> None:
        for _ in range(n):
            opt.zero_grad()
            (net(tm.arange(8.0).reshape(4, 2)) ** 2).mean().backward()
            opt.step()

    net, opt = build()
    train(net, opt, 2)
    tm.save({"model": net.state_dict(), "opt": opt.state_dict(), "epoch": 2}, tmp_path / "c.pt")
    train(net, opt, 2)
    saved = tm.load(tmp_path / "c.pt")
    other, resumed = build()
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["opt"])
    train(other, resumed, 2)
    assert saved["epoch"] == 2
    for key, value in net.state_dict().items():
        assert tm.equal(value, other.state_dict()[key]), key


def test_file_objects_and_foreign_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    buffer = io.BytesIO()
    tm.save({"x": tm.ones(2)}, buffer)
    buffer.seek(0)
    assert tm.load(buffer)["x"].tolist() == [1.0, 1.0]
    save_file({"w": np.arange(3, dtype=np.float32)}, tmp_path / "w.safetensors")
    assert tm.load(tmp_path / "w.safetensors")["w"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("value", "text"), [
    (lambda: nn.Linear(1, 1), r"a whole Linear cannot be saved.*\n.*torch.save\(model.state_dict\(\), path\)"),
    (lambda: {"m": nn.ReLU()}, r"a whole ReLU cannot be saved \(at m\)"),
    (lambda: optim.SGD(nn.Linear(1, 1).parameters()), r"optimizer.state_dict\(\)"),
    (lambda: {"a": [1, print]}, r"a builtin_function_or_method cannot be saved \(at a.1\)"),
])
def test_what_cannot_be_saved_is_refused_with_the_remedy(tmp_path: Path, value: Any, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        tm.save(value(), tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


def _broken(kind: str, good: bytes) -> bytes:
    return {
        "empty": b"",
        "short": good[:5],
        "half": good[: len(good) // 2],
        "end": good[:-3],
        "text": b"hello, this is text",
        "pickle": pickle.dumps({"a": 1}),
        "zip": b"PK\x03\x04" + bytes(60),
        "header": good[:12] + b"\xff\xff" + good[14:],
        "json": good.replace(b'\\"version\\"', b'\\"vorsion\\"'),
        "newer": good.replace(b'\\"version\\": 1', b'\\"version\\": 9'),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "short", "half", "end", "text", "pickle", "zip", "header", "json", "newer"])
def test_damaged_and_foreign_files_are_explained(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.pt"
    tm.save({"x": tm.ones(4), "n": 1}, path)
    good = path.read_bytes()
    bad = _broken(kind, good)
    assert bad != good
    path.write_bytes(bad)
    with pytest.raises(CheckpointError) as caught:
        tm.load(path)
    text = str(caught.value)
    assert "x.pt" in text
    assert "hint: " in text
    assert "test_checkpoints.py" in text
    if kind in ("pickle", "zip"):
        assert "PyTorch checkpoint" in text


def test_a_missing_file_is_pythons_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tm.load(tmp_path / "none.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    tm.save({"n": 1}, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        tm.save({"n": 2}, path)
    monkeypatch.undo()
    assert tm.load(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]
