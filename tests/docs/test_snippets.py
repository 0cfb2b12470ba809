"""Snippets of the documentation run: Python blocks execute, IR blocks parse and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tracemill.ir.text import parse_graph, print_graph
from tracemill.ir.verify import verify

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/ir.md", "docs/debugging.md", "docs/architecture.md")


def _blocks(kind: str) -> list[tuple[str, int, str]]:
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append((page, text.count("\n", 0, match.start()) + 1, match.group(1)))
    return found


@pytest.mark.parametrize(("page", "line", "code"), _blocks("python"), ids=lambda v: str(v) if len(str(v)) < 40 else "")
def test_python(page: str, line: int, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile("\n" * line + code, page, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("page", "line", "text"), _blocks("ir"), ids=lambda v: str(v) if len(str(v)) < 40 else "")
def test_ir(page: str, line: int, text: str) -> None:
    graph = parse_graph(text, file=f"{page}:{line}")
    verify(graph)
    assert parse_graph(print_graph(graph)) == graph


def test_links_lead_somewhere() -> None:
    wrong = []
    for page in (*PAGES, "docs/walkthrough.md", "docs/accuracy.md", "docs/operators.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            if "://" not in target and not (ROOT / page).parent.joinpath(target).exists():
                wrong.append(f"{page}: {target}")
        for target in re.findall(r"\b(?:docs|examples|ir|compiler|runtime|frontends)/[\w/]+\.(?:md|py|lark)\b", text):
            if not (ROOT / target).exists():
                wrong.append(f"{page}: {target}")
    assert not wrong
