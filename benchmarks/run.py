"""All systems side by side: `python benchmarks/run.py [W1 W2 …] [--repeat 3] [--out DIR]`.

Each workload runs in a process of its own per system, the systems in turn, so that drift of the machine hits all.
Peers that are not installed are left out and named (`pip install '.[bench]'` has them; `--python` names an interpreter
of another environment). All start from the same weights: a system whose loss after 20 steps differs by more than 1e-3
is marked. `--cold` also times first steps with empty caches. `--out` writes results.json, table.md, steps.png and a
roofline page per workload.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import SYSTEMS
from workloads import NAMES

HERE = Path(__file__).resolve().parent
LAYOUTS = ("W3", "W6")  # channels-last is a question of images
TOLERANCE = 1e-3

Figures = dict[str, float]
Results = dict[str, dict[str, Figures]]


def run_one(python: str, name: str, system: str, steps: int, threads: int, cache: str | None) -> Figures | str:
    """Figures of one process, or why there are none. `cache`: a folder for what compilers keep."""
    environment = dict(os.environ)
    if cache:
        environment |= {"TRACEMILL_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
    command = [python, str(HERE / "measure.py"), name, system, "--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, env=environment)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def run_all(args: argparse.Namespace, systems: list[str]) -> Results:
    """Medians over the repetitions, per workload and system."""
    results: Results = {}
    for name in args.workloads:
        todo = [s for s in systems if not s.endswith("-nhwc") or name in LAYOUTS]
        runs: dict[str, list[Figures]] = {s: [] for s in todo}
        for s in todo:
            if s.startswith("tracemill"):
                run_one(sys.executable, name, s, 1, args.threads, None)  # fills the caches: `first_s` is a second start
        for _ in range(args.repeat):
            for s in todo:
                python = sys.executable if s.startswith("tracemill") else args.python
                figures = run_one(python, name, s, args.steps, args.threads, None)
                if isinstance(figures, str):
                    print(f"{name} {s}: left out: {figures}", file=sys.stderr)
                    continue
                runs[s].append(figures)
        found = {s: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for s, rs in runs.items() if rs}
        if args.cold:
            for s in [s for s in found if s in ("tracemill", "compile", "jax")]:
                found[s]["cold_s"] = cold(args, name, s)
        results[name] = found
        print(f"{name}: " + ", ".join(f"{s} {f['step_us']:,.0f}" for s, f in found.items()), flush=True)
    return results


def cold(args: argparse.Namespace, name: str, system: str) -> float:
    """Seconds to a first step with empty caches; one process, since torch.compile takes half a minute."""
    python = sys.executable if system == "tracemill" else args.python
    with tempfile.TemporaryDirectory() as cache:
        figures = run_one(python, name, system, 1, args.threads, cache)
    return float("nan") if isinstance(figures, str) else figures["first_s"]


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What ran where."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), cpu)
    probe = "import importlib.metadata as m, json\nfound = {}\nfor p in {!r}:\n try: found[p] = m.version(p)\n"
    probe += " except m.PackageNotFoundError: pass\nprint(json.dumps(found))"
    versions: dict[str, str] = {}
    for python, names in ((args.python, ("torch", "jax")), (sys.executable, ("tracemill", "numpy", "numba"))):
        done = subprocess.run([python, "-c", probe.replace("{!r}", repr(names))], capture_output=True, text=True)
        versions |= json.loads(done.stdout) if done.returncode == 0 else {}
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=NAMES)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated; default: all")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="also time first steps with empty caches")
    parser.add_argument("--out", type=Path, help="folder for results, table, plot and roofline pages")
    args = parser.parse_args()
    import report
    import roofline

    about = machine(args)
    roof = roofline.measure_roof(args.threads)
    about |= {"threads": args.threads, "gflops": roof.flops / 1e9, "gbytes": roof.bandwidth / 1e9}
    results = run_all(args, args.systems.split(","))
    limits = {name: roofline.model(name).seconds(roof) for name in results}
    table = report.table(results, limits, about, TOLERANCE)
    print(table)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        record = {"machine": about, "limits": limits, "results": results}
        (args.out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (args.out / "table.md").write_text(table)
        report.plot(results, limits, args.out / "steps.png")
        for name in results:
            report.page(name, args.threads, roof, args.out)


if __name__ == "__main__":
    main()
