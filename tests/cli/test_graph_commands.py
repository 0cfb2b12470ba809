"""`tracemill opt`, `exec`, `diff` and `dump` on .ir files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tracemill.ir.arrays import read_arrays, write_arrays
from tracemill.ir.text import parse_graph

from .conftest import LINEAR, Command


def values(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "w.npy", w)
    return x, w


def test_opt_without_passes_prints_what_it_read(command: Command, linear: Path) -> None:
    code, out, _ = command("opt", linear)
    assert code == 0
    assert parse_graph(out) == parse_graph(LINEAR)


def test_opt_runs_passes_in_order(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "twice.ir"
    file.write_text("graph (%x: f32[N]) { %0 = exp(%x) %1 = exp(%x) %2 = add(%0, %1) return y = %2 }")
    code, out, _ = command("opt", file, "--passes", "cse,dce", "-o", tmp_path / "once.ir")
    assert (code, out) == (0, "")
    assert (tmp_path / "once.ir").read_text().count("exp(") == 1


@pytest.mark.parametrize(("passes", "said"), [
    ("cse,dse", "did you mean dce?"),
    ("cse{size=3}", "has no option 'size'"),
    ("cse,,dce", "unexpected"),
])
def test_opt_names_the_slip_in_a_pipeline(command: Command, linear: Path, passes: str, said: str) -> None:
    code, out, err = command("opt", linear, "--passes", passes)
    assert (code, out) == (1, "")
    assert said in err and "^" in err


def test_opt_lists_the_passes(command: Command) -> None:
    code, out, _ = command("opt", "--list")
    assert code == 0
    assert {"autodiff", "optimizer", "cse", "dce"} <= {line.split()[0] for line in out.splitlines()}


@pytest.mark.parametrize(("text", "said"), [
    ("graph (%x: f32[2]) { return y = %z }", "%z"),
    ("graph (%x: f32[2]) { %0 = ad(%x, %x) return y = %0 }", "ad"),
    ("graph (%x: f32[2], %y: f32[3]) { %0 = add(%x, %y) return y = %0 }", "f32[2]"),
    ("grap", "grap"),
    ("", "end"),
])
def test_bad_text_is_refused_at_its_line(command: Command, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.ir"
    file.write_text(text)
    code, _, err = command("opt", file)
    assert code == 1
    assert "bad.ir:1" in err and said in err and "Traceback" not in err


def test_a_missing_file_is_one_line(command: Command, tmp_path: Path) -> None:
    for args in (("opt", tmp_path / "no.ir"), ("exec", tmp_path / "no.ir"), ("run", tmp_path / "no.py"),
                 ("dump", tmp_path / "no.py"), ("diff", tmp_path / "no.ir", tmp_path / "no.ir")):
        code, _, err = command(*args)
        assert code == 1
        assert err.count("\n") == 1 and "No such file" in err


def test_wrong_usage_has_its_own_exit_code(command: Command, linear: Path) -> None:
    assert command("frobnicate").code == 2
    assert command("opt").code == 2
    assert command("dump", linear, "--phase", "never").code == 2
    assert command("run", "--stats", "/no/such/folder/s.json", "x.py").code == 2


@pytest.mark.parametrize("interpret", [[], ["--interpret"]])
def test_exec_takes_values_from_files_and_defaults(command: Command, linear: Path, tmp_path: Path,
                                                   interpret: list[str]) -> None:
    x, w = values(tmp_path)
    out = tmp_path / "out.safetensors"
    inputs = [f"x={tmp_path}/x.npy", f"w={tmp_path}/w.npy"]
    code, _, err = command("exec", linear, "--inputs", *inputs, *interpret, "-o", out)
    assert code == 0, err
    np.testing.assert_allclose(read_arrays(out)["out"], np.exp(x @ w * np.float32(0.5)), rtol=1e-5)


def test_exec_reads_the_file_beside_and_a_number(command: Command, linear: Path, tmp_path: Path) -> None:
    x, w = values(tmp_path)
    write_arrays(linear.with_suffix(".safetensors"), {"x": x, "w": w})
    code, out, err = command("exec", linear, "--set", "scale=0", "--interpret")
    assert code == 0, err
    assert out.startswith("out: f32[B,2] = [1. 1. 1. 1. 1. 1. 1. 1.]")


def test_exec_compares_both_ways_of_running(command: Command, linear: Path, tmp_path: Path) -> None:
    x, w = values(tmp_path)
    write_arrays(linear.with_suffix(".safetensors"), {"x": x, "w": w})
    code, out, err = command("exec", linear, "--check")
    assert code == 0, err
    assert "out: f32[B,2]" in out and "too far" not in out


def test_exec_finds_the_first_nan(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "nan.ir"
    file.write_text('graph (%x: f32[3]) { %0 = sub(%x, f32(2.0)) %1 = log(%0) @ "train.py":7 in "head"\n'
                    "%2 = exp(%1) return y = %2 }")
    np.save(tmp_path / "x.npy", np.array([1, 3, 4], np.float32))
    code, out, _ = command("exec", file, "--nan", f"x={tmp_path}/x.npy")
    assert code == 1
    assert out.startswith("%1 = log(%0)") and "train.py:7 in head" in out and "operand 0  -1 … 2" in out
    np.save(tmp_path / "x.npy", np.array([3, 3, 4], np.float32))
    assert command("exec", file, "--nan", f"x={tmp_path}/x.npy").code == 0


@pytest.mark.parametrize(("inputs", "said"), [
    (["x=x.npy"], "%w: f32[3,2] has no value"),
    (["x=x.npy", "q=x.npy"], "no input %q"),
    (["x=x.npy", "w=wide.npy"], "float64"),
    (["x=x.npy", "w=x.npy"], "w"),
    (["x=x.npy", "w=no.npy"], "no.npy"),
    (["bad.safetensors"], "bad.safetensors"),
    (["x=x.npy", "w=w.npy", "--set", "scale=much"], "much"),
])
@pytest.mark.parametrize("interpret", [[], ["--interpret"]])
def test_exec_refuses_unfit_values(command: Command, linear: Path, tmp_path: Path, inputs: list[str], said: str,
                                   interpret: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, w = values(tmp_path)
    np.save("wide.npy", w.astype(np.float64))
    Path("bad.safetensors").write_bytes(b"nonsense")
    code, out, err = command("exec", linear, "--inputs", *inputs, *interpret)
    assert (code, out) == (1, "")
    assert said in err and "Traceback" not in err and err.count("\n") <= 12


def test_diff_shows_what_differs(command: Command, linear: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ir"
    other.write_text(LINEAR.replace("exp", "tanh"))
    assert command("diff", linear, linear) == (0, "", "")
    code, out, _ = command("diff", linear, other)
    assert code == 1
    assert "- %2 = exp" in out and "+ %2 = tanh" in out and "dot" not in out.replace("  %0 = dot", "")


@pytest.mark.parametrize("phase", ["traced", "differentiated", "optimizer", "replicated", "simplified", "fused"])
def test_dump_of_every_phase_reads_back(command: Command, linear: Path, phase: str) -> None:
    code, out, err = command("dump", linear, "--phase", phase)
    assert code == 0, err
    assert parse_graph(out).size_names == ("B",)


def test_dump_of_a_fused_graph_goes_on_from_there(command: Command, linear: Path, tmp_path: Path) -> None:
    values(tmp_path)
    inputs = [f"x={tmp_path}/x.npy", f"w={tmp_path}/w.npy"]
    fused = tmp_path / "fused.ir"
    fused.write_text(command("dump", linear, "--phase", "fused").out)
    assert command("exec", fused, *inputs).out == command("exec", linear, *inputs).out
    assert command("dump", fused, "--phase", "planned").code == 0


@pytest.mark.parametrize(("emit", "mark"), [
    ("kernel", "# kernel"), ("llvm", "define"), ("asm", ".text"), ("dot", "digraph"),
])
def test_dump_in_every_form(command: Command, linear: Path, emit: str, mark: str) -> None:
    code, out, err = command("dump", linear, "--emit", emit)
    assert code == 0, err
    assert mark in out


def test_dump_of_a_plan_tells_its_memory(command: Command, linear: Path) -> None:
    code, out, _ = command("dump", linear, "--phase", "kernels")
    assert code == 0
    assert "entries" in out and "at B=64" in out and "def " in out


def test_large_constants_travel_beside(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "big.ir"
    numbers = ", ".join(str(i) for i in range(100))
    file.write_text(f"graph (%x: i64[100]) {{ %0 = constant() {{value=i64[100]({numbers})}}\n"
                    "%1 = add(%x, %0) return y = %1 }")
    code, _, err = command("dump", file, "--phase", "traced", "-o", tmp_path / "out")
    assert code == 0, err
    dumped = tmp_path / "out" / "001-graph-traced.ir"
    assert "(@" in dumped.read_text()
    assert command("diff", file, dumped).code == 0
    np.save(tmp_path / "x.npy", np.zeros(100, np.int64))
    assert command("exec", dumped, f"x={tmp_path}/x.npy", "--interpret").code == 0


def test_cache_and_info(command: Command) -> None:
    assert "kernels" in command("cache", "info").out
    out = command("info").out
    assert {"tracemill", "python", "numba", "cpu", "threads", "cache"} <= {line.split()[0] for line in out.splitlines()}


@pytest.mark.parametrize("name", ["run", "compile", "dump", "opt", "exec", "diff", "cache", "info"])
def test_every_command_has_help_with_an_example(command: Command, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"tracemill {name}" in out.split("Example", 1)[1]
