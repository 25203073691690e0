"""Which model is better? python tools/compare_models.py CONFIG CONFIG ... --seeds 3 --samples 6000 --seconds 600

For every model: a grid of learning rates on the validation frames, then a run per seed at the best rate with the same
number of training samples, then, with --seconds, runs of the same computing time; scored on the test split, written as
a table and a plot. Finished runs are skipped: start it again until it is done, in several processes if you like.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 if the comparison is complete, 75 if it has to go on later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path, nargs="+", help="one config per model, the cheapest to train first")
    parser.add_argument("--reference", metavar="NAME", help="config name to compare with (default: the last config)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6000, help="training samples of a run (default: 6000)")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3], help="grid (default: 1e-4 3e-4 1e-3)"
    )
    parser.add_argument("--grid-samples", type=int, help="training samples of a run of the grid (default: --samples)")
    parser.add_argument("--seconds", type=float, help="computing time of a run of the second comparison")
    parser.add_argument(
        "--select", default="mean_dice", metavar="METRIC", help="chooses the learning rate (default: mean_dice)"
    )
    parser.add_argument("--test-split", default="Test", help="replaces val_dataset.split at the end (default: Test)")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/compare_models")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop cleanly after this long")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes of a run (default: 0)")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of every config"
    )
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _run(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and a misspelt option should not.
    from adperception.config import load_config
    from adperception.engine.model_comparison import ComparisonRun, run_comparison
    from adperception.engine.model_comparison_plan import Comparison
    from adperception.engine.model_comparison_report import markdown_report

    models = {path.stem: load_config(path, options.cfg_options) for path in options.configs}
    if len(models) < len(options.configs):
        raise ValueError("two configs have the same file name, by which the models are told apart; rename one.")
    comparison = Comparison(
        models=models,
        reference=options.reference or options.configs[-1].stem,
        seeds=options.seeds,
        samples=options.samples,
        learning_rates=tuple(options.learning_rates),
        grid_samples=options.grid_samples,
        seconds=options.seconds,
        select=options.select,
        test_split=options.test_split,
    )
    run = ComparisonRun(
        work_dir=options.work_dir or Path("work_dirs/compare_models"),
        device=options.device,
        time_limit_minutes=options.time_limit,
        workers=options.workers,
        command=["python", *sys.argv],
    )
    results = run_comparison(comparison, run)
    print("\n" + markdown_report(results), flush=True)
    return 0 if results.is_complete else 75


if __name__ == "__main__":
    sys.exit(main())
