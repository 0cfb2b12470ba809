"""Run many random graphs through the whole pipeline: `python tests/differential/fuzz.py --graphs 2000 [--first SEED]`.

Every graph is checked forward and gradient: float64 against the reference, float32 against both. With `--all` also that
fusion, threads and named sizes change no bit. Seeds of failures are printed; `--show SEED` prints a graph. `--plain`
runs the kernels as plain Python.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from checks import check_all, check_values
from random_graphs import f64, random_graph


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--unfused", action="store_true", help="one kernel an operator")
    parser.add_argument("--all", action="store_true", help="check bits as well as values")
    parser.add_argument("--plain", action="store_true", help="kernels as plain Python, none compiled")
    parser.add_argument("--show", type=int, metavar="SEED", help="print a graph")
    args = parser.parse_args()
    if args.show is not None:
        print(random_graph(args.show, f64, args.nodes).graph)
        return 0
    failed: list[int] = []
    start = time.perf_counter()
    for seed in range(args.first, args.first + args.graphs):
        try:
            if args.all:
                check_all(seed, args.nodes, args.plain)
            else:
                check_values(seed, args.nodes, not args.unfused, args.plain)
        except Exception:
            failed.append(seed)
            print(f"seed {seed} failed\n{traceback.format_exc(limit=-3)}", flush=True)
        if (seed - args.first + 1) % 50 == 0:
            spent = time.perf_counter() - start
            print(f"{seed - args.first + 1} graphs, {len(failed)} failed, {spent:.0f} s", flush=True)
    print(f"{args.graphs} graphs from seed {args.first}: {len(failed)} failed {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
