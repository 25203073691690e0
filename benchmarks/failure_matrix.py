"""Failures at random places of training with every strategy: do the others go on as documented, and how soon?

``python benchmarks/failure_matrix.py [--points N] [--strategies ...] [--failures ...] [--seed S] [--jobs J]``

A run is four processes with ``TorchCommunicator(store=..., on_failure="regroup", round_timeout_seconds=3)`` over gloo,
24 steps of a small network, a round every 3, a checkpoint every 4. One of them fails (tests/optim/failure_runs.py):

- killed worker: SIGKILL between two steps; before it arrives at a round; before, in or after a collective; between its
  vote and the decision. Killed leader: the same to the worker that LSGD elected last, or to the first worker.
  The others finish all steps, without the killed one, which is the only one that is gone.
- slow worker: it sleeps for longer than the time-out: it is named, the others go on without it, and it ends with
  ``ExcludedError``. Or for less: it is named, and all go on.
- NaN worker: a gradient is NaN: it is left out of means and elections, counted, and starts again from what the others
  have. Or a loss is, and its step is left out: it does not lead, and is counted where losses or gradients matter.
- killed while saving: before, in or after its own file; the main worker (the first that is left) also before the model
  file, and before the checkpoint appears. The others write the checkpoint; it is complete, holds them and nobody else,
  and starting from it works, both where each of them was and from the consensus model.

In all of them nobody else fails; parameters, buffers and state of those that are left are finite; what has to be equal
on all is, to the bit, and so is the consensus; and nobody is blocked for more than three time-outs from one step to
the next, or to its named error. Exits with 1 if one run comes out differently.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "optim"))

from failure_runs import PLACES, STRATEGIES, WORKERS, draw, problems, train
from faults import WorkerPool

MANY = ("LSGD", "EASGD", "LGRAWA", "DPSGD")
TIMEOUT_SECONDS = 3.0
HANGS_AFTER_SECONDS = 90.0


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        strategy: of the run.
        failure: of the run.
        point: number of the scenario.
        place: where it happened.
        problems: what did not come out as documented.
        longest_seconds: the longest time that a worker needed from one step to the next, its own sleep left out.
        seconds: of the whole run.
    """

    strategy: str
    failure: str
    point: int
    place: str
    problems: list[str]
    longest_seconds: float
    seconds: float


_pool: list[WorkerPool] = []


def run(strategy: str, failure: str, point: int, seed: int) -> Result:
    """One run, in a process that keeps its pool of workers for the next one."""
    if not _pool:
        _pool.append(WorkerPool())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scenario = draw(strategy, failure, point, seed, TIMEOUT_SECONDS, Path(folder))
        outcomes = _pool[0].run(train, WORKERS, (scenario,), timeout_seconds=HANGS_AFTER_SECONDS)
        found = problems(scenario, outcomes)
    longest = max((outcome.returned["longest"] for outcome in outcomes if outcome.returned), default=0.0)
    return Result(strategy, failure, point, scenario.place, found, longest, time.monotonic() - start)


def table(results: Sequence[Result]) -> str:
    """Strategies by failures: runs that came out as documented, of all, and the longest block in seconds."""
    failures = [failure for failure in PLACES if any(r.failure == failure for r in results)]
    lines = ["| strategy | " + " | ".join(failures) + " |", "|---" * (len(failures) + 1) + "|"]
    for strategy in [name for name in STRATEGIES if any(r.strategy == name for r in results)]:
        cells = []
        for failure in failures:
            cell = [r for r in results if (r.strategy, r.failure) == (strategy, failure)]
            good = sum(not r.problems for r in cell)
            cells.append(f"{good}/{len(cell)}, {max((r.longest_seconds for r in cell), default=0.0):.1f} s")
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, help=f"runs per cell (default: 20 for {', '.join(MANY)}, else 3)")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--failures", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--seed", type=int, default=0, help="of the random places")
    parser.add_argument("--jobs", type=int, default=3, help="runs at the same time; most of the time they wait")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    arguments = parser.parse_args()
    runs = [
        (strategy, failure, point, arguments.seed)
        for strategy in arguments.strategies
        for failure in arguments.failures
        for point in range(arguments.points or (20 if strategy in MANY else 3))
    ]
    start, results = time.monotonic(), list[Result]()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as executor:
        for future in as_completed([executor.submit(run, *each) for each in runs]):
            results.append(future.result())
            if results[-1].problems:
                print(json.dumps(asdict(results[-1])), flush=True)
            if len(results) % 20 == 0:
                print(f"{len(results)}/{len(runs)} runs, {time.monotonic() - start:.0f} s", flush=True)
    results.sort(key=lambda r: (list(STRATEGIES).index(r.strategy), list(PLACES).index(r.failure), r.point))
    failed = [result for result in results if result.problems]
    print(f"\n{table(results)}\n", flush=True)
    longest = max((result.longest_seconds for result in results), default=0.0)
    minutes = (time.monotonic() - start) / 60
    print(
        f"{len(results) - len(failed)} of {len(results)} runs as documented, seed {arguments.seed}; nobody was blocked"
    )
    print(f"for more than {longest:.1f} s (limit: {3 * TIMEOUT_SECONDS:.0f} s); {minutes:.0f} minutes")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
