"""Every mistake in IR text is answered with line, column and caret; garbage never raises anything else."""

from __future__ import annotations

import random

import pytest
from tracemill.ir.errors import IRSyntaxError, TracemillError
from tracemill.ir.text import parse_graph, print_graph
from tracemill.ir.verify import verify

VALID = """\
graph step sizes(i = 3) (%x: f32[B,4] batch, %w: f32[4] parameter, %lr: f64[] hyper = 0.001) {
  # layers.0
  %0 = broadcast(%w) {shape=[B, 4], dims=[1]} : f32[B,4]
  %1 = mul(%x, %0) : f32[B,4] @ "train.py":12 in "layers.0"
  %2 = sum(%1) {axes=[0, 1]} : f32[]
  %3 = extent() {value=4*B+(B+1)//2} : i64[]
  %4 = cast(%3) {dtype=f32} : f32[]
  %5 = div(%2, %4) : f32[]
  %6, %7 = topk(%x) {k=2, axis=1}
  %8 = constant() {value=i32[2](1, -7)} : i32[2]
  %9 = pad(%1, f32(-inf)) {pads=[[1, 0, 0], [0, 2, 1]]}
  _, %10 = scan(%w, %x) {body=graph (%c: f32[4] batch, %r: f32[4] batch) {
    %0 = add(%c, %r) : f32[4]
    return c = %0, y = %0
  }, n_carry=1, n_xs=1, length=B} : (f32[4], f32[B,4])
  %11 = cast(%lr) {dtype=f32} : f32[]
  %12 = mul(%w, %11) : f32[4]
  return loss = %5, v = %6, i = %7, c = %8, p = %9, y = %10, w = %12 -> %w
}
"""

# (what is replaced, by what, the complaint, line, column)
MISTAKES = [
    ("mul(%x, %0)", "mull(%x, %0)", "unknown operator mull; did you mean mul?", 4, 8),
    ("mul(%x, %0)", "mul(%x, %q)", "%q is not defined above this line", 4, 16),
    ("mul(%x, %0)", "mul(%x)", "mul takes 2 inputs, got 1", 4, 8),
    ("mul(%x, %0)", "mul(%x, %w)", "shapes [B, 4] and [4] do not match", 4, 8),
    ("{axes=[0, 1]}", "{axis=[0, 1]}", "sum has no attribute axis", 5, 8),
    ("{axes=[0, 1]}", "", "sum needs the attribute axes", 5, 8),
    ("{axes=[0, 1]}", "{axes=[0, 1], axes=[0]}", "attribute axes is given twice", 5, 30),
    ("{axes=[0, 1]}", "{axes=[0, 2]}", "axis 2 is out of range", 5, 8),
    ("%2 = sum", "%1 = sum", "%1 is defined twice", 5, 3),
    (": f32[]\n  %3", ": f32[B]\n  %3", "sum gives f32[], the text says f32[B]", 5, 32),
    ("i32[2](1, -7)", "i32[2](1)", "needs 2 numbers, 1 given", 10, 26),
    ("i32[2](1, -7)", "i32[2](1, 99999999999)", "99999999999 is not a number of i32", 10, 36),
    ("parameter", "paramter", "unknown role paramter", 1, 57),
    ("-> %w", "-> %0", "%0 is not an input", 18, 73),
    ("%6, %7 = topk", "%6 = topk", "topk has 2 results", 9, 3),
    ("%1 = mul", "%1, %99 = mul", "mul has one result", 4, 7),
    ("4*B+(B+1)//2", "4*B+(B+1)//0", "division by zero", 6, 28),
    ("4*B+", "4*C+", "size C is bound by no input", 18, 3),
    ("f32(-inf)", "f32(x)", "unexpected", 11, 20),
    ("graph step", "grph step", "unexpected", 1, 1),
    ("return loss", "retrun loss", "unexpected", 18, 3),
    ("f32[B,4] batch", "f32[B,-4] batch", "an extent is negative", 1, 30),
]


def test_the_text_is_valid() -> None:
    graph = parse_graph(VALID)
    assert parse_graph(print_graph(graph)) == graph


@pytest.mark.parametrize(
    ("old", "new", "message", "line", "column"), MISTAKES, ids=[m[2][:30] for m in MISTAKES]
)
def test_mistakes_show_line_and_caret(old: str, new: str, message: str, line: int, column: int) -> None:
    assert old in VALID
    broken = VALID.replace(old, new, 1)
    with pytest.raises(IRSyntaxError) as caught:
        parse_graph(broken, file="step.ir")
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"step.ir:{line}:{column}: ")
    _, source, caret = text.split("\n")
    assert source.strip() == broken.splitlines()[line - 1].strip()
    assert caret.index("^") == column + 1


def test_empty_and_truncated_texts() -> None:
    for end in (0, 1, 10, 100, 300, len(VALID) - 2):
        with pytest.raises(IRSyntaxError):
            parse_graph(VALID[:end])


@pytest.mark.parametrize("opening", ["(", "max(1,", "-(", "1+("])
def test_deep_nesting_does_not_overflow(opening: str) -> None:
    text = "graph (%x: f32[" + opening * 5000 + "B" + ")" * 5000 + "]) { return }"
    try:
        parse_graph(text)
    except IRSyntaxError as error:
        assert "nested too deeply" in str(error)


def _mutate(rng: random.Random, text: str) -> str:
    """One to three random edits: characters, tokens, lines."""
    alphabet = '%{}[]()=,:->"@#+*/ \n0123456789abfgmxBN_.\0é\x7f'
    for _ in range(rng.randint(1, 3)):
        i, j = sorted(rng.randrange(len(text)) for _ in range(2))
        match rng.randrange(6):
            case 0:
                text = text[:i] + rng.choice(alphabet) + text[i:]
            case 1:
                text = text[:i] + rng.choice(alphabet) + text[i + 1 :]
            case 2:
                text = text[:i] + text[min(j, i + rng.randint(1, 30)) :]
            case 3:
                text = text[:i] + text[j : j + rng.randint(1, 30)] + text[i:]
            case 4:
                lines = text.split("\n")
                a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[a], lines[b] = lines[b], lines[a]
                text = "\n".join(lines)
            case 5:
                text = text[:i] + str(rng.choice([0, -1, 2**31, 2**63, 10**30, 1e300])) + text[i:]
    return text


def test_a_thousand_mutations_are_refused_or_verified() -> None:
    rng = random.Random(20)
    accepted = refused = 0
    for number in range(1000):
        text = _mutate(rng, VALID)
        try:
            graph = parse_graph(text)
        except IRSyntaxError as error:
            shown = str(error).split("\n")
            assert len(shown) == 3 and "^" in shown[2], f"mutation {number}"
            refused += 1
            continue
        except TracemillError as error:
            pytest.fail(f"mutation {number}: {error!r} without line and caret\n{text}")
        verify(graph)
        assert parse_graph(print_graph(graph)) == graph
        accepted += 1
    assert refused > 500 and accepted > 20
