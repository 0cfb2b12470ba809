"""Shared fixtures: a private kernel cache for the session, and the text round trip of every graph built."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts background jobs with interrupts ignored, which the processes of tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never read kernels of another version, nor leave any in the user's cache.

    Workers of one run share the folder: the cache is safe under concurrent processes, and kernels compile once.
    """
    if "TRACEMILL_CACHE_DIR" in os.environ:
        yield
        return
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = root / "tracemill-cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["TRACEMILL_CACHE_DIR"] = str(folder)
    yield
    del os.environ["TRACEMILL_CACHE_DIR"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the data folder ../shared/data is not beside this checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _every_graph_round_trips() -> Iterator[None]:
    """Every graph that any test compiles is printed and parsed back."""
    from tracemill.compiler import driver
    from tracemill.ir.text import parse_graph, print_graph

    seen: set[bytes] = set()

    def check(compiled: driver.Compiled) -> None:
        graph = compiled.graph
        if graph.digest not in seen:
            seen.add(graph.digest)
            constants: dict[str, object] = {}
            text = print_graph(graph, constants=constants)  # type: ignore[arg-type]
            assert parse_graph(text, constants) == graph  # type: ignore[arg-type]

    stop = driver.on_compiled(check)
    yield
    stop()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="accept the present output of text tests")
