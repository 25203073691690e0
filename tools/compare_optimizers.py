"""Which distributed optimiser? python tools/compare_optimizers.py --task digits --workers 4 --seeds 5

Trains with every method, any number of workers in this one process: a grid of settings on the validation split, equally
many for every method, then a run per seed in the best setting, scored on the test split. Writes tables (accuracy,
difference to data-parallel training, bytes, modelled seconds on a given network) and a plot. Finished runs are skipped:
start it again until it is done, in several processes if you like.

With --plan, no training: seconds and bytes per 1,000 steps of a model of that many parameters for 8 to 512 workers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adperception.engine.study_task import StudyTask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 if the study is complete, 75 if it has to go on later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits", help="digits (default), or a config")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: those of docs/compare_optimizers.md")
    parser.add_argument(
        "--sharding", nargs="+", metavar="NAME", help="dealt, fixed, skewed (default: fixed skewed; of a config: dealt)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[4], help="tuned and compared with the first, scaled to the others"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="local steps of a run (default: 400)")
    parser.add_argument("--scaling-steps", type=int, default=64, help="of a run with more workers (default: 64)")
    parser.add_argument("--batch-size", type=int, help="of one worker (default: 32, or the config's)")
    parser.add_argument("--sync-every", type=int, default=16, help="local steps between rounds (default: 16)")
    parser.add_argument("--drop-at", type=float, default=0.75, help="where the learning rate drops to a tenth")
    parser.add_argument("--configurations", type=int, default=12, help="settings tried per method, at most 12")
    parser.add_argument("--default-learning-rate", type=float, default=0.1, help="of the runs with default strengths")
    parser.add_argument("--bandwidth", type=float, nargs="+", default=[1e9], help="bit/s; modelled (default: 1e9)")
    parser.add_argument("--latency", type=float, default=1e-4, help="seconds, one way; modelled (default: 1e-4)")
    parser.add_argument(
        "--step-seconds", type=float, default=2e-3, help="computing of a local step; modelled (default: 2e-3)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of a config"
    )
    parser.add_argument("--plan", type=int, metavar="PARAMETERS", help="only the plan for a model of this size")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/compare_optimizers")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="begin no further run after this long")
    options = parser.parse_args(arguments)
    try:
        return _plan(options) if options.plan is not None else _study(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _plan(options: argparse.Namespace) -> int:
    from adperception.engine.communication_plan import Hardware
    from adperception.engine.communication_plan_report import PLAN_WORKERS, plan_report
    from adperception.engine.optimizer_methods import DEFAULT_METHODS, METHODS, NO_COMMUNICATION, known_methods
    from adperception.optim.time_model import Link

    workers = options.workers if options.workers != [4] else PLAN_WORKERS
    hardware = [Hardware(Link(rate, options.latency), options.step_seconds) for rate in options.bandwidth]
    names = known_methods(options.methods or DEFAULT_METHODS)
    strategies = {name: METHODS[name].strategy() for name in names if name != NO_COMMUNICATION}
    print(plan_report(strategies, workers, options.sync_every, options.plan, hardware), flush=True)
    return 0


def _study(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and a misspelt option should not.
    from adperception.engine.communication_plan import Hardware
    from adperception.engine.optimizer_methods import DEFAULT_METHODS
    from adperception.engine.optimizer_study import StudyRun, run_optimizer_study
    from adperception.engine.optimizer_study_plan import OptimizerStudy
    from adperception.engine.optimizer_study_report import markdown_report
    from adperception.optim.time_model import Link

    work_dir = options.work_dir or Path("work_dirs/compare_optimizers")
    task = _task(options.task, options.cfg_options, work_dir)
    study = OptimizerStudy(
        methods=tuple(options.methods or DEFAULT_METHODS),
        shardings=tuple(options.sharding or [name for name in task.shardings if name != "dealt"] or task.shardings),
        workers=tuple(options.workers),
        seeds=options.seeds,
        steps=options.steps,
        batch_size=task.batch_size if options.batch_size is None else options.batch_size,
        sync_every=options.sync_every,
        drop_at=options.drop_at,
        configurations=options.configurations,
        default_learning_rate=options.default_learning_rate,
        scaling_steps=options.scaling_steps,
    )
    run = StudyRun(
        work_dir=work_dir,
        hardware=Hardware(Link(options.bandwidth[0], options.latency), options.step_seconds),
        time_limit_minutes=options.time_limit,
        command=["python", *sys.argv],
    )
    results = run_optimizer_study(study, task, run)
    print("\n" + markdown_report(results), flush=True)
    return 0 if results.is_complete else 75


def _task(name: str, overrides: Sequence[str], work_dir: Path) -> StudyTask:
    if not name.endswith(".py"):
        from adperception.engine.digits import DigitsTask

        if name != "digits":
            raise ValueError(f"--task {name} is unknown. Available: digits, or the path of a config (.py).")
        return DigitsTask()
    from adperception.config import load_config
    from adperception.engine.cell_runs import make_data_once
    from adperception.engine.config_task import ConfigTask

    config = load_config(name, overrides)
    make_data_once([config], work_dir.resolve())
    return ConfigTask(config)


if __name__ == "__main__":
    sys.exit(main())
