"""What `run.py` says: a table, a plot of all steps, and a roofline page per workload."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import roofline
from workloads import TITLES

Figures = dict[str, float]
Results = dict[str, dict[str, Figures]]

# A peer's column is the better of its layouts.
PEERS = {"torch": "torch eager", "compile": "torch.compile", "jax": "jax.jit"}
OURS = {"tracemill": "tracemill", "tracemill-loop": "plain loop"}


def best(found: dict[str, Figures], system: str) -> Figures | None:
    """A peer's figures in its faster layout."""
    both = [found[s] for s in (system, f"{system}-nhwc") if s in found]
    return min(both, key=lambda f: f["step_us"]) if both else None


def table(results: Results, limits: dict[str, float], about: dict[str, Any], tolerance: float) -> str:
    """Markdown: step times, ratios, first steps, memory, losses."""
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    lines = [
        f"{about['cpu']}, {about['threads']} of {about['cores']} cores, Python {about['python']}, {versions}. Measured "
        f"roofs: {about['gflops']:.0f} GFLOP/s (1024³ product), {about['gbytes']:.0f} GB/s (copy).",
        "",
        "Median step in µs, its loss read; ×: how many times faster the compiled step is than the best peer; roof: the "
        "step over its roofline time.",
        "",
        _row("", *OURS.values(), *PEERS.values(), "×", "loop × eager", "roof"),
        _row(*["---"] * (len(OURS) + len(PEERS) + 4)),
    ]
    lines += [_steps(name, found, limits[name]) for name, found in results.items()]
    lines += ["", "Seconds from the import to the first step's loss (cold: empty caches), and the peak memory of 20 "
              "steps in MB above the import's.", ""]
    columns = ("tracemill cold", "torch.compile cold", "jax.jit cold", "tracemill warm", "torch eager")
    memory = ("MB: tracemill", "torch eager", "jax.jit")
    lines += [_row("", *columns, *memory), _row(*["---"] * (len(columns) + len(memory) + 1))]
    lines += [_firsts(name, found) for name, found in results.items()]
    wrong = list(_differences(results, tolerance))
    verdict = f"Losses after 20 steps agree within {tolerance:g} everywhere." if not wrong else "Losses differ:"
    return "\n".join([*lines, "", verdict, *wrong, ""])


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _steps(name: str, found: dict[str, Figures], limit: float) -> str:
    ours = [found[s]["step_us"] if s in found else None for s in OURS]
    peers = [f["step_us"] if (f := best(found, s)) else None for s in PEERS]
    fastest = min((p for p in peers if p), default=None)

    def ratio(a: float | None, b: float | None, form: str = ".2f") -> str:
        return format(a / b, form) if a and b else ""

    cells = [f"{v:,.0f}" if v and v >= 100 else f"{v:.1f}" if v else "" for v in (*ours, *peers)]
    roof = ratio(ours[0], limit * 1e6) if limit > 1e-5 else ""
    return _row(f"{name} {TITLES[name]}", *cells, ratio(fastest, ours[0]), ratio(peers[0], ours[1]), roof)


def _firsts(name: str, found: dict[str, Figures]) -> str:
    def cell(system: str, key: str, scale: float = 1.0, form: str = ".2f") -> str:
        figures = found.get(system, {})
        return format(figures[key] / scale, form) if key in figures else ""

    colds = [cell(s, "cold_s") for s in ("tracemill", "compile", "jax")]
    warm = [cell(s, "first_s") for s in ("tracemill", "torch")]
    return _row(name, *colds, *warm, *(cell(s, "memory", 1e6, ".0f") for s in ("tracemill", "torch", "jax")))


def _differences(results: Results, tolerance: float) -> list[str]:
    wrong = []
    for name, found in results.items():
        losses = {s: f["loss"] for s, f in found.items()}
        if max(losses.values()) - min(losses.values()) > tolerance:
            wrong.append(f"* {name}: " + ", ".join(f"{s} {v:.5f}" for s, v in losses.items()))
    return wrong


def plot(results: Results, limits: dict[str, float], path: Path) -> None:
    """Bars of the step times over the compiled step's, per workload, with the roofline's mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    series = {**OURS, **PEERS}
    figure, axes = plt.subplots(figsize=(11, 4.5))
    width = 0.8 / len(series)
    for i, (system, label) in enumerate(series.items()):
        heights = []
        for found in results.values():
            figures = best(found, system)
            heights.append(figures["step_us"] / found["tracemill"]["step_us"] if figures else 0.0)
        axes.bar([x + (i - 2) * width for x in range(len(results))], heights, width, label=label)
    for x, (name, found) in enumerate(results.items()):
        limit = limits[name] * 1e6 / found["tracemill"]["step_us"]
        if limit > 0.1:
            axes.plot([x - 0.4, x + 0.4], [limit, limit], color="black", linewidth=1, linestyle=":")
    axes.set_xticks(range(len(results)), [f"{n}\n{_short(TITLES[n])}" for n in results])
    axes.set_yscale("log")
    axes.set_ylabel("step time / tracemill's")
    axes.set_title("One training step (dotted: the roofline)")
    axes.legend(ncols=len(series), fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _short(title: str) -> str:
    """A title's words before its numbers."""
    return re.split(r",| \d| \[| on ", title)[0]


def page(name: str, threads: int, roof: roofline.Roof, folder: Path) -> None:
    """`W3.md` and `W3.png`: each kernel of the compiled step between the two roofs."""
    from kernels import profile

    model = roofline.model(name)
    limit = model.seconds(roof) * 1e6
    step_us, rows = profile(name, threads)
    lines = [
        f"# {name}: {TITLES[name]}",
        "",
        f"Model (benchmarks/roofline.py): {model.flops / 1e9:.3f} GFLOP and {model.bytes / 1e6:.1f} MB a step, "
        f"{limit:,.0f} µs at {roof.flops / 1e9:.0f} GFLOP/s and {roof.bandwidth / 1e9:.0f} GB/s. "
        f"Measured: {step_us:,.0f} µs.",
        "",
        f"![kernels between the roofs]({name}.png)",
        "",
        _row("µs", "GFLOP/s", "GB/s", "of roof", "kernel"),
        _row("---:", "---:", "---:", "---:", "---"),
    ]
    for r in sorted(rows, key=lambda r: -r.us)[:40]:
        lines.append(_row(f"{r.us:.1f}", f"{r.flops / r.us / 1e3:.1f}", f"{r.bytes / r.us / 1e3:.1f}",
                          f"{r.share(roof):.0%}", r.label.replace("|", "\\|")))
    (folder / f"{name}.md").write_text("\n".join([*lines, ""]))
    _plot_page(name, rows, roof, folder / f"{name}.png")


def _plot_page(name: str, rows: list[Any], roof: roofline.Roof, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    points = [r for r in rows if r.flops and r.bytes and r.us > 0]
    intensity = [2.0**e for e in range(-6, 11)]
    axes.plot(intensity, [min(roof.flops, roof.bandwidth * i) / 1e9 for i in intensity], color="black", linewidth=1)
    total = sum(r.us for r in points) or 1.0
    axes.scatter([r.flops / r.bytes for r in points], [r.flops / r.us / 1e3 for r in points],
                 s=[20 + 600 * r.us / total for r in points], alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("flops per byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{name}: kernels of one step (area: time)")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
