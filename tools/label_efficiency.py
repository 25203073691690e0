"""Did pre-training help? python tools/label_efficiency.py CONFIG --init scratch ad_l_jepa --fractions 0.05 0.2 1.0

Pre-trains every method once per seed, fine-tunes the detector CONFIG from each on each share of the labels, evaluates
at the last step, and writes a table and a plot. Finished runs are skipped: start it again until it is done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run the command line; returns the exit code: 0 if the study is complete, 75 if it has to go on later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="config of a detector, e.g. configs/second/second_small.py")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.05, 0.2, 1.0], help="shares of the labels")
    parser.add_argument(
        "--init", nargs="+", default=["scratch", "ad_l_jepa"], metavar="METHOD", help="scratch and pre-training methods"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds; each covers pre-training and fine-tuning"
    )
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/label_efficiency_<config name>")
    parser.add_argument("--budget", choices=["equal", "upstream"], default="equal", help="steps per fraction")
    parser.add_argument("--subset", choices=["first", "every"], default="first", help="first frames, or every k-th")
    parser.add_argument("--steps", type=int, help="optimizer steps of every fine-tuning (default: the config's)")
    parser.add_argument("--pretrain-steps", type=int, help="optimizer steps of every pre-training")
    parser.add_argument(
        "--pretrain",
        nargs="+",
        action="extend",
        default=[],
        metavar="METHOD=CONFIG",
        help="pre-training config of a method, used with its own data (default: the zoo's of the same geometry, on the "
        "detector's training frames)",
    )
    parser.add_argument("--metric", help="what the table compares (default: the last headline metric)")
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="stop cleanly after this long")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of the detector's config"
    )
    parser.add_argument(
        "--pretrain-cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="of every pre-training config",
    )
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and a misspelt option should not.
    from adperception.config import load_config
    from adperception.engine.label_efficiency import StudyRun, run_study
    from adperception.engine.label_efficiency_plan import SCRATCH, Study, default_pretraining
    from adperception.engine.label_efficiency_report import markdown_report

    detector = load_config(arguments.config, arguments.cfg_options)
    named = dict(_named_config(text) for text in arguments.pretrain)
    unused = sorted(named.keys() - set(arguments.init))
    if unused:
        raise ValueError(f"--pretrain names {', '.join(unused)}, which --init does not ask for.")
    options = arguments.pretrain_cfg_options
    pretraining = {
        name: load_config(named[name], options) if name in named else default_pretraining(detector, name, options)
        for name in arguments.init
        if name != SCRATCH
    }
    study = Study(
        detector=detector,
        pretraining=pretraining,
        inits=tuple(arguments.init),
        fractions=tuple(arguments.fractions),
        seeds=arguments.seeds,
        budget=arguments.budget,
        subset=arguments.subset,
        steps=arguments.steps,
        pretrain_steps=arguments.pretrain_steps,
    )
    run = StudyRun(
        work_dir=arguments.work_dir or Path("work_dirs") / f"label_efficiency_{arguments.config.stem}",
        device=arguments.device,
        time_limit_minutes=arguments.time_limit,
        metric=arguments.metric,
        command=["python", *sys.argv],
    )
    results = run_study(study, run)
    print("\n" + markdown_report(results), flush=True)
    return 0 if results.is_complete else 75


def _named_config(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise ValueError(f"--pretrain {text}: write METHOD=CONFIG, e.g. ad_l_jepa=configs/ad_l_jepa/ad_l_jepa_small.py")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
