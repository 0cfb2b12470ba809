"""`tracemill run`: a script sees the world as under `python`; errors are short; statistics are written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Command

LINEAR_REGRESSION = """\
import torch
import torch.nn as nn
import torch.optim as optim

torch.manual_seed(0)
x = torch.linspace(-1, 1, 100).unsqueeze(1)
y = 2 * x + 1 + 0.1 * torch.randn(100, 1)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)

model = Model()
criterion = nn.MSELoss()
optimizer = optim.SGD(model.parameters(), lr=0.01)
for epoch in range(1000):
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    print(model(torch.tensor([[0.5]])).numpy()[0, 0])
print(model.linear.weight.item(), model.linear.bias.item())
"""

HEAVY = """\
import sys
print([m for m in ("numba", "llvmlite", "networkx", "lark", "rich", "safetensors", "ml_dtypes") if m in sys.modules])
"""

ABOUT = """\
from __future__ import annotations
import inspect, sys
\"\"\"not a docstring\"\"\"
def f(x: NoSuchName): ...
print(__name__, __file__, __package__, __spec__, __annotations__)
print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
print(inspect.getsource(f).strip())
"""


def test_a_script_sees_what_it_sees_under_python(process: Command, tmp_path: Path) -> None:
    (tmp_path / "about.py").write_text(ABOUT)
    ours = process("run", "about.py", "--stats", "x", "-v", "--", "a")
    pythons = process("about.py", "--stats", "x", "-v", "--", "a", python=())
    assert ours == pythons


def test_future_flags_of_tracemill_do_not_reach_the_script(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def f(x: int): ...\nprint(f.__annotations__['x'] is int)\n")
    assert process("run", "s.py").out == "True\n"


def test_exit_codes_are_the_scripts(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import sys\nsys.exit(eval(sys.argv[1]))\n")
    assert process("run", "s.py", "None").code == 0
    assert process("run", "s.py", "7").code == 7
    done = process("run", "s.py", "'bye'")
    assert (done.code, done.err) == (1, "bye\n")


def test_exceptions_of_the_script_print_as_under_python(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "def load():\n    return {}['missing']\n\n"
        "try:\n    load()\nexcept KeyError as error:\n    raise ValueError('no') from error\n")
    ours, pythons = process("run", "s.py"), process("s.py", python=())
    assert ours == pythons
    assert ours.code == 1


def test_frames_of_tracemill_are_left_out(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("from tracemill import nn\n\nclass M(nn.Module):\n    def forward(self, x):\n"
                                   "        return x.nothing\n\nM()(1)\n")
    done = process("run", "s.py")
    assert done.code == 1
    assert done.err.count("  File ") == 2 and "line 7" in done.err and "line 5" in done.err
    assert done.err.endswith("AttributeError: 'int' object has no attribute 'nothing'\n")
    assert process("run", "s.py", env={"TRACEMILL_TRACEBACK": "1"}).err.count("  File ") > 2


def test_a_scripts_own_hook_is_called(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import sys\nsys.excepthook = lambda t, e, tb: print('mine', e)\n1 / 0\n")
    done = process("run", "s.py")
    assert (done.code, done.out, done.err) == (1, "mine division by zero\n", "")


def test_a_syntax_error_is_pythons(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("x = 1\ndef f(:\n")
    ours, pythons = process("run", "s.py"), process("s.py", python=())
    assert (ours.code, ours.err) == (1, pythons.err)


def test_the_well_known_mistake_is_explained(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LINEAR_REGRESSION.replace(".unsqueeze(1)", "").replace("100, 1)", "100)"))
    done = process("run", "--as-torch", "train.py")
    assert done.code == 1
    assert done.err.count("\n") <= 12 and "Traceback" not in done.err
    assert "train.py:15: Linear(1, 1)" in done.err
    assert "[100]" in done.err and "[1, 1]" in done.err
    assert "unsqueeze(-1)" in done.err


def test_statistics_of_a_thousand_steps(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LINEAR_REGRESSION)
    first = process("run", "--as-torch", "--stats", "first.json", "train.py")
    again = process("run", "--as-torch", "--stats", "again.json", "train.py")
    assert first.code == 0, first.err
    assert first.out == again.out
    prediction, weight, bias = map(float, first.out.split())
    assert abs(weight - 2) < 0.1 and abs(bias - 1) < 0.1 and abs(prediction - weight / 2 - bias) < 1e-5
    stats = json.loads((tmp_path / "first.json").read_text())
    steps = [g for g in stats["graphs"] if g["updates"]]
    assert len(steps) == 1 and steps[0]["peak_bytes"] > 0
    assert stats["runs"] >= 1000 and stats["seconds_to_first_step"] > 0
    assert any(f["count"] >= 990 and "train.py:" in f["line"] for f in stats["flushes"])
    warm = json.loads((tmp_path / "again.json").read_text())
    assert warm["graphs_compiled"] == warm["kernels_compiled"] == 0
    assert warm["graphs_loaded"] == stats["graphs_compiled"] + stats["graphs_loaded"] > 0


def test_a_warm_run_imports_nothing_heavy(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LINEAR_REGRESSION + HEAVY)
    process("run", "--as-torch", "train.py")
    assert process("run", "--as-torch", "train.py").out.splitlines()[-1] == "[]"


def test_statistics_are_written_when_the_script_fails(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("1 / 0\n")
    assert process("run", "--stats", "s.json", "s.py").code == 1
    assert json.loads((tmp_path / "s.json").read_text())["graphs_traced"] == 0


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "big.ir").write_text("graph (%x: f32[4]) {\n" + "".join(
        f"  %{i} = exp({'%x' if i == 0 else f'%{i - 1}'})\n" for i in range(3000)) + "  return y = %2999\n}\n")
    writer = subprocess.Popen([sys.executable, "-m", "tracemill", "opt", str(tmp_path / "big.ir")],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait(60) == 0
    writer.stderr.close()


def test_compile_prints_graphs_kernels_and_bytes(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LINEAR_REGRESSION)
    done = process("compile", "--as-torch", "--graphs", "2", "--kernels", "train.py")
    assert done.code == 0, done.err
    table, _, kernels = done.out.partition("\n\n")
    assert all(line.startswith("tm_") for line in kernels.splitlines()) and "dot" in kernels
    lines = table.splitlines()
    assert lines[0].split() == ["graph", "nodes", "launches", "kernels", "peak", "bytes", "plan"]
    assert any(line.startswith("step ") for line in lines) and lines[-1].startswith("2 graphs, ")


def test_dump_of_a_script_can_be_edited_and_run(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LINEAR_REGRESSION)
    done = process("dump", "train.py", "--as-torch", "--phase", "optimizer", "--graphs", "2", "-o", "graphs")
    assert done.code == 0, done.err
    (step,) = (tmp_path / "graphs").glob("*-step-optimizer.ir")
    assert step.with_suffix(".safetensors").exists()
    text = step.read_text()
    assert "gradient(" not in text and "update(" not in text and "hyper = 0.01" in text
    check = process("exec", step, "--check")
    assert check.code == 0, check.out + check.err
    step.write_text(text.replace("hyper = 0.01", "hyper = 0.5"))
    changed = process("exec", step)
    assert changed.code == 0 and changed.out != process("exec", step, "--set", "lr=0.01").out


def test_dump_keeps_what_a_script_prints_off_the_dump(process: Command, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('hello')\n" + LINEAR_REGRESSION)
    done = process("dump", "--as-torch", "train.py", "--graphs", "1")
    assert done.code == 0
    assert done.out.startswith("graph ") and "hello" in done.err


def test_a_failing_pass_leaves_a_reproducer(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "import tracemill as tm\nfrom tracemill.compiler.passes.simplify import Simplify\n"
        "def broken(self, graph):\n    raise RuntimeError('told to')\nSimplify.run = broken\n"
        "print((tm.ones(3).exp() * 2.5).sum().item())\n")
    done = process("run", "s.py", env={"TRACEMILL_CACHE_DIR": str(tmp_path / "cache")})
    assert done.code == 3
    assert "told to" in done.err and "Traceback" not in done.err
    command = done.err[done.err.index("tracemill opt "):].splitlines()[0].replace("'", "").split()
    assert Path(command[2]).exists()
    assert process(*command[1:]).code == 0


def test_bad_data_while_running_names_the_line(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "import tracemill as tm\nimport tracemill.nn.functional as F\nlogits = tm.randn(4, 3, requires_grad=True)\n"
        "labels = tm.tensor([0, 1, 2, 3])\nloss = F.cross_entropy(logits, labels)\nprint(loss.item())\n")
    done = process("run", "s.py")
    assert done.code == 1
    assert "s.py:5" in done.err and "3" in done.err and done.err.count("\n") <= 12


def test_an_unfit_environment_is_no_fault_of_the_script(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import tracemill as tm\nprint(tm.ones(3).exp().sum().item() > 8)\n")
    done = process("run", "s.py", env={"TRACEMILL_NUM_THREADS": "many"})
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: TRACEMILL_NUM_THREADS='many'") and "s.py" not in done.err
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = process("run", "s.py", env={"TRACEMILL_CACHE_DIR": str(tmp_path / "open")})
    assert done.code == 1 and done.err.startswith("error: the cache folder") and "s.py" not in done.err
    (tmp_path / "file").write_text("")
    env = {"TRACEMILL_CACHE_DIR": str(tmp_path / "file" / "below"), "TRACEMILL_EXPLAIN": "1"}
    done = process("run", "--stats", "s.json", "s.py", env=env)
    assert (done.code, done.out) == (0, "True\n")
    assert "no record" in json.loads((tmp_path / "s.json").read_text())["graphs"][0]["miss"]
    assert done.err.startswith("warning: the cache folder") and done.err.count("\n") == 1


def test_an_interrupt_has_its_own_exit_code(process: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    done = process("run", "s.py")
    assert (done.code, done.err.strip()) == (130, "interrupted")


def test_a_progress_bar_appears_for_long_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracemill.compiler.cli import report

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = report.CompileBar()
    bar(0, 4)
    bar(1, 4)
    assert bar.bar is None
    bar.started -= 1.5
    bar(2, 4)
    assert bar.bar is not None
    bar(4, 4)
    assert bar.bar is None and "compiling kernels" in screen.getvalue()
