"""The examples run, for a few steps, and learn something where a few steps suffice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *args: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "tracemill", "run", str(EXAMPLES / name), *args], cwd=folder,
                          capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_linear_regression(tmp_path: Path) -> None:
    out = run("linear_regression.py", folder=tmp_path)
    match = re.search(r"weight (\S+)  bias (\S+)", out)
    assert match is not None
    assert abs(float(match[1]) - 2) < 0.1 and abs(float(match[2]) - 1) < 0.1


def test_mlp(tmp_path: Path) -> None:
    out = run("mlp.py", "--epochs", "2", "--images", "2000", folder=tmp_path)
    losses = [float(x) for x in re.findall(r"loss (\S+)", out)]
    accuracies = [float(x) for x in re.findall(r"accuracy (\S+)%", out)]
    assert len(losses) == 2 and losses[1] < losses[0] and accuracies[1] > 60


def test_cnn(tmp_path: Path) -> None:
    out = run("cnn.py", "--images", "300", "--batch", "32", folder=tmp_path)
    assert re.search(r"epoch 1  loss \d\.\d+  test accuracy \d+\.\d+%", out)


def test_char_lm(tmp_path: Path) -> None:
    out = run("char_lm.py", "--steps", "50", "--layers", "1", "--width", "32", "--heads", "2", "--context", "16",
              "--letters", "5", folder=tmp_path)
    match = re.search(r"step +50  mean loss of the last 50 (\S+)", out)
    assert match is not None and 1.0 < float(match[1]) < 3.5


def test_real_data_is_read(shared_data: Path, tmp_path: Path) -> None:
    out = run("mlp.py", "--data", str(shared_data / "mnist.npz"), "--epochs", "1", folder=tmp_path)
    match = re.search(r"accuracy (\S+)%", out)
    assert match is not None and float(match[1]) > 93


@pytest.mark.parametrize("name", ["mlp.py", "cnn.py", "char_lm.py"])
def test_help(name: str, tmp_path: Path) -> None:
    assert "--data" in run(name, "--help", folder=tmp_path)
