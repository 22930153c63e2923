"""What the diagnostics cost: a step with them against a step without, in one process.

    python experiments/benchmarks/diagnostics.py [--seconds 60]

The default job's population (8 members) trains with `tracker.diagnose_every` at 0, at its default
and at other values, each in its turn; what is printed is the median over rounds of each time over
that of the same round without diagnostics, with the quartiles.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
from engine import job, together

from jaxhpo.config.run import PbtRun
from jaxhpo.population.config import ExecutionConfig, prepare_backend, usable_cores

MEMBERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 5, 20])
    options = parser.parse_args()
    prepare_backend(ExecutionConfig(devices=usable_cores()), MEMBERS)
    config, data = job(argparse.Namespace(d_model=64, layers=2))
    spans = [0, *sorted({PbtRun().tracker.diagnose_every, *options.every})]
    ways = {
        every: together(
            replace(config, tracker=replace(config.tracker, diagnose_every=every)),
            data,
            MEMBERS,
            1,
        )
        for every in spans
    }
    for timed in ways.values():
        timed()
    rounds = []
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until or len(rounds) < 3:
        rounds.append([ways[every]() for every in spans])
    times = np.asarray(rounds)
    print(f"without: {1e3 * np.median(times[:, 0]):.3f} ms a member and step, {len(times)} rounds")
    for column, every in enumerate(spans[1:], 1):
        low, middle, high = np.quantile(times[:, column] / times[:, 0] - 1, [0.25, 0.5, 0.75])
        print(f"every {every:3d} steps: {middle:+.1%} (quartiles {low:+.1%} to {high:+.1%})")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
