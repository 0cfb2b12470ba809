"""`--as-torch`: every import of torch is tracemill, here and in child processes; users' own modules stay theirs."""

from __future__ import annotations

from pathlib import Path

from .conftest import Command

SAME = """\
import torch, torch.nn, torch.nn.functional as F, torch.optim as optim, torch.utils.data
import torch.nn.init, torch.nn.utils, torch.autograd
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch import nn, Tensor
import tracemill, tracemill.nn.functional, tracemill.utils.data

assert torch is tracemill and nn is torch.nn is tracemill.nn and F is tracemill.nn.functional
assert optim is tracemill.optim and DataLoader is tracemill.utils.data.DataLoader
assert Tensor is tracemill.Tensor and isinstance(tracemill.ones(1), torch.Tensor)
assert tracemill.nn.__name__ == "tracemill.nn" and tracemill.nn.__spec__.name == "tracemill.nn"
print("same")
"""

CHILDREN = """\
import multiprocessing, subprocess, sys
import torch, tracemill

def work(queue):
    import torch.nn
    queue.put((torch is tracemill, float(torch.ones(3).sum())))

if __name__ == "__main__":
    code = "import torch.nn as nn, torch, tracemill; print(torch is tracemill, nn is tracemill.nn)"
    print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=work, args=(queue,))
    child.start()
    print(queue.get(timeout=60))
    child.join()
"""

MISSING = """\
for name in ("torchvision", "torch._C", "torch.compiler", "torch.nowhere"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error.name, "|", error)
import torchvision
"""


def test_every_import_is_the_same_module(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SAME)
    done = process("run", "--as-torch", "s.py")
    assert (done.code, done.out) == (0, "same\n"), done.err


def test_modules_that_the_script_imports_see_it_too(process: Command, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch.nn as nn\nclass Net(nn.Linear): pass\n")
    (tmp_path / "s.py").write_text("from model import Net\nprint(Net(2, 1).weight.shape)\n")
    assert process("run", "--as-torch", "s.py").out == "torch.Size([1, 2])\n"


def test_child_processes_inherit_it(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(CHILDREN)
    done = process("run", "--as-torch", "s.py")
    assert (done.code, done.out) == (0, "True True\n(True, 3.0)\n"), done.err


def test_what_needs_the_real_torch_fails_in_one_sentence(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(MISSING)
    done = process("run", "--as-torch", "s.py")
    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["torchvision", "torch._C", "torch.compiler", "torch.nowhere"]
    assert all("tracemill" in line and "--as-torch" in line for line in lines)
    assert done.err.splitlines()[-1].startswith("ModuleNotFoundError: torchvision needs the real PyTorch")


def test_without_it_torch_is_not_ours(process: Command, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("mine = True\n")
    (tmp_path / "s.py").write_text("import torch\nprint(torch.mine)\n")
    assert process("run", "s.py").out == "True\n"


def test_users_folders_may_be_called_as_ours(process: Command, tmp_path: Path) -> None:
    (tmp_path / "runtime.py").write_text("X = 1\n")
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "__init__.py").write_text("Y = 2\n")
    (tmp_path / "compiler.py").write_text("Z = 3\n")
    (tmp_path / "s.py").write_text("import runtime, ir, compiler, torch\nprint(runtime.X, ir.Y, compiler.Z, "
                                   "float((torch.ones(3) * 2).exp().sum()) > 20)\n")
    done = process("run", "--as-torch", "s.py")
    assert (done.code, done.out) == (0, "1 2 3 True\n"), done.err
