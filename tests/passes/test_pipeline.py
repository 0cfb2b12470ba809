"""Pipelines as text, the pass manager: callbacks, legality, reproducers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from tracemill.compiler.passes import format_pipeline, parse_pipeline, registry
from tracemill.compiler.passes.base import Pass, options_of
from tracemill.compiler.passes.base import parse_pipeline as parse_with
from tracemill.compiler.passes.simplify import Cse, Dce, Fold, Simplify
from tracemill.compiler.pipeline import (
    GRAPH_PHASES,
    PHASES,
    Dump,
    PassEvent,
    PassManager,
    Timing,
    chain,
    check_legal,
    passes_of,
    run_phases,
    verifying,
)
from tracemill.ir.build import Builder
from tracemill.ir.dtypes import f32
from tracemill.ir.errors import AutogradError, InternalError, IRSyntaxError, Location, VerifyError
from tracemill.ir.graph import Graph, InputSpec, input_node
from tracemill.ir.node import Place
from tracemill.ir.text import parse_graph
from tracemill.ir.types import TensorType

b = Builder()
VECTOR = TensorType(f32, (3,))


def square_gradient() -> Graph:
    x = input_node(0, VECTOR)
    loss = b.sum(b.mul(x, x), axes=(0,))
    g = b.result(b.gradient(loss, b.scalar(1.0, f32), x, n_outputs=1, n_wrt=1), index=0)
    return Graph("square", (InputSpec("x", VECTOR),), (loss, g))


@dataclass(frozen=True)
class Shaky:
    """A pass for tests with an option of every kind; fails on demand."""

    times: int = 1
    scale: float = 1.0
    loud: bool = False
    mode: str = "ok"

    name: ClassVar[str] = "shaky"

    def run(self, graph: Graph) -> Graph:
        if self.mode == "crash":
            raise ZeroDivisionError("oops")
        if self.mode == "user":
            raise AutogradError("not differentiable", location=Location("script.py", 3))
        if self.mode == "retype":
            return graph.with_outputs([b.cast(o, dtype=f32) if o.dtype is not f32
                                       else b.reshape(o, shape=(1, *o.shape))
                                       for o in graph.outputs])
        return graph


REGISTRY: dict[str, type[Pass]] = {"shaky": Shaky, "cse": Cse}


# -- text ----------------------------------------------------------------------------------------------------


def test_pipeline_text_round_trip() -> None:
    passes = parse_pipeline("cse, dce,fold{max_elements=1}")
    assert passes == [Cse(), Dce(), Fold(max_elements=1)]
    assert format_pipeline(passes) == "cse,dce,fold{max_elements=1}"
    assert parse_pipeline("") == []
    options = [Shaky(times=-3, scale=0.5, loud=True, mode="a b"), Shaky()]
    text = 'shaky{times=-3,scale=0.5,loud=true,mode="a b"},shaky'
    assert format_pipeline(options) == text and parse_with(text, REGISTRY) == options
    assert parse_with("shaky{loud, scale=2, mode=quick}",
                      REGISTRY) == [Shaky(loud=True, scale=2.0, mode="quick")]


@pytest.mark.parametrize("text, message, column", [
    ("cse,dec", "no pass is called 'dec'", 5),
    ("cse,shakey", "did you mean shaky?", 5),
    ("shaky{tims=3}", "did you mean times?", 7),
    ("cse{x=1}", "it has none", 5),
    ("shaky{times=0.5}", "takes an integer", 13),
    ("shaky{times}", "takes an integer", 7),
    ("shaky{loud=1}", "true or false", 12),
    ("shaky{times=3", "ends too early", 14),
    ("cse,,cse", "unexpected ','", 5),
    ("cse;dce", "unexpected character ';'", 4),
])
def test_slips_in_a_pipeline_are_shown_with_a_caret(text: str, message: str, column: int) -> None:
    with pytest.raises(IRSyntaxError) as error:
        parse_with(text, REGISTRY)
    shown = str(error.value).splitlines()
    assert message in shown[0]
    assert shown[1] == f"  {text}" and shown[2] == "  " + " " * (column - 1) + "^"


def test_registered_passes_are_frozen_and_say_what_they_do() -> None:
    for name, cls in registry().items():
        assert cls.name == name and cls.__doc__ and parse_pipeline(name) == [cls()]
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert {"autodiff", "optimizer", "simplify", "cse", "dce", "fuse"} <= set(registry())


def test_options_are_the_fields() -> None:
    assert options_of(Shaky) == {"times": (int, 1), "scale": (float, 1.0), "loud": (bool, False),
                                 "mode": (str, "ok")}


# -- phases --------------------------------------------------------------------------------------------------


def test_phases_lead_from_symbols_to_plain_operators() -> None:
    g = run_phases(square_gradient(), until="simplified", callback=verifying)
    assert "gradient" not in {n.op.name for n in g.nodes}
    assert run_phases(g, after="simplified", until="simplified") is g
    assert PHASES[-2:] == ("planned", "kernels") and GRAPH_PHASES[0] == "traced" and not passes_of("traced")


def test_legality_names_the_operator_and_the_line() -> None:
    x = input_node(0, VECTOR)
    here = Builder(Place(Location("script.py", 9)))
    g = Graph("g", (InputSpec("x", VECTOR),), (here.stop_gradient(x),))
    check_legal(g, "traced")
    with pytest.raises(VerifyError, match="stop_gradient is illegal in phase differentiated") as error:
        check_legal(g, "differentiated")
    assert error.value.location == Location("script.py", 9)


# -- the manager ---------------------------------------------------------------------------------------------


def test_one_callback_sees_every_pass(tmp_path: Path) -> None:
    seen: list[PassEvent] = []
    timing = Timing()
    callback = chain(seen.append, timing, verifying, None, Dump(tmp_path))
    g = run_phases(square_gradient(), until="simplified", callback=callback)
    assert [e.index for e in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert [e.phase for e in seen] == [*["differentiated"] * 2, "optimizer", "replicated", *["simplified"] * 3]
    assert list(timing.seconds) == [e.step.name for e in seen]
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["000_input.ir", "001_attention.ir", "002_autodiff.ir", "003_optimizer.ir", "004_replicate.ir",
                     "005_simplify.ir", "006_layout.ir", "007_windows.ir"]
    assert parse_graph((tmp_path / files[0]).read_text()) == square_gradient()
    assert parse_graph((tmp_path / files[-1]).read_text()) == g


def test_a_failing_pass_leaves_a_reproducer(tmp_path: Path) -> None:
    g = square_gradient()
    with pytest.raises(InternalError, match="ZeroDivisionError: oops") as error:
        PassManager(reproducers=tmp_path).run(g, [Cse(), Shaky(mode="crash", times=4)])
    file, = tmp_path.iterdir()
    text = file.read_text()
    assert parse_graph(text) == g
    command = f"tracemill opt {file} --passes 'shaky{{times=4,mode=\"crash\"}}'"
    assert command in text and command in str(error.value)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_pass_that_breaks_the_graph_is_a_bug_with_a_reproducer(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="changed an output's type"):
        PassManager(verifying, reproducers=tmp_path).run(square_gradient(), [Shaky(mode="retype")])
    assert list(tmp_path.iterdir())


def test_the_users_own_mistakes_pass_through(tmp_path: Path) -> None:
    with pytest.raises(AutogradError, match=r"script\.py:3"):
        PassManager(reproducers=tmp_path).run(square_gradient(), [Shaky(mode="user")])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InternalError, match="no reproducer could be written"):
        PassManager(reproducers=blocked / "sub").run(square_gradient(), [Shaky(mode="crash")])


def test_simplify_reports_a_form_that_is_not_canonical() -> None:
    x = input_node(0, VECTOR)
    g = Graph("g", (InputSpec("x", VECTOR),), (b.mul(b.scalar(2.0, f32), x),))
    assert not Simplify().is_canonical(g)
    with pytest.raises(InternalError, match="stopped before the canonical form"):
        PassManager(verifying).run(g, [Simplify(rounds=0)])
