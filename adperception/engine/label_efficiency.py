"""Did pre-training help? Runs the cells of a label-efficiency study, one after the other, and sums them up.

A finished cell has a file ``cell.json`` in its folder and is never run again; an interrupted one goes on from its
checkpoint. The same command may be started several times at once, for several cores or GPUs: each start takes cells
that no other one holds.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adperception.checkpoint.layout import step_directory
from adperception.engine.cell_runs import POLL_SECONDS, Train, can_go_on, make_data_once, time_limit, train_or_go_on
from adperception.engine.cells import CELL_FILE, read_cell, with_sections
from adperception.engine.checkpointing import checkpoint_root
from adperception.engine.claims import claimed
from adperception.engine.console import say
from adperception.engine.distributed import launched_processes
from adperception.engine.label_efficiency_plan import Cell, Study, plan_cells
from adperception.engine.label_efficiency_report import StudyResults, collect_results, write_report
from adperception.engine.results import describe_machine, write_json
from adperception.engine.run import check_names, train
from adperception.engine.settings import parse_settings
from adperception.engine.trainer import Trainer
from adperception.registry import EVALUATIONS, build

__all__ = ["StudyRun", "run_study"]


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """How a study is carried out.

    Attributes:
        work_dir: where everything is written.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.
        time_limit_minutes: after this long the running cell stops at its next step, with a checkpoint; a final
            evaluation that has begun is finished.
        metric: what the table compares; ``None``: the last headline metric of the detector's first evaluation.
        command: for the results file.
    """

    work_dir: Path
    device: str | None = None
    time_limit_minutes: float | None = None
    metric: str | None = None
    command: Sequence[str] = ()


def run_study(study: Study, run: StudyRun, train: Train = train) -> StudyResults:
    """Run what is not done yet; write ``results.json``, ``results.md`` and ``results.png`` after every cell.

    Args:
        study: what is compared.
        run: where and for how long.
        train: what trains a config, for tests.

    Returns:
        The results so far.

    Raises:
        ValueError: for anything that does not fit, before the first cell where possible.
    """
    if launched_processes() > 1:
        raise ValueError("label_efficiency runs in one process; start it without torchrun.")
    work_dir = run.work_dir.resolve()
    for config in (study.detector, *study.pretraining.values()):
        check_names(parse_settings(config.values))
    make_data_once([study.detector, *study.pretraining.values()], work_dir)
    cells = plan_cells(study)
    metric = run.metric or default_metric(study)
    done = [cell for cell in cells if read_cell(work_dir, cell) is not None]
    say(f"{len(cells)} cells, {len(done)} done; results in {run.work_dir}")
    with time_limit(run.time_limit_minutes) as is_over:
        while not all(read_cell(work_dir, cell) is not None for cell in cells):
            ran, finished = _run_next(cells, work_dir, run, train, is_over)
            if not finished:
                say("stopped; the same command goes on from here")
                break
            if ran:
                write_report(_collect(study, cells, work_dir, metric, run), run.work_dir)
            else:
                time.sleep(POLL_SECONDS)
    results = _collect(study, cells, work_dir, metric, run)
    write_report(results, run.work_dir)
    return results


def _run_next(
    cells: Sequence[Cell], work_dir: Path, run: StudyRun, train: Train, is_over: Callable[[], bool]
) -> tuple[bool, bool]:
    """Run the first cell that is not done, ready, and in nobody else's hands; whether one was run, and to its end."""
    for number, cell in enumerate(cells, start=1):
        if is_over():
            return False, False
        ready = cell.needs is None or read_cell(work_dir, cell.needs) is not None
        if not ready or read_cell(work_dir, cell) is not None:
            continue
        with claimed(work_dir / cell.folder) as mine:
            # It may have been finished between the look and the claim.
            if mine and read_cell(work_dir, cell) is None:
                return True, _run_cell(cell, f"cell {number} of {len(cells)}", work_dir, run, train)
    return False, not is_over()


def default_metric(study: Study) -> str:
    """The last headline metric of the detector's first evaluation (KITTI: the mean over classes)."""
    evaluation = build(EVALUATIONS, parse_settings(study.detector.values).evaluations[0])
    if not evaluation.headline:
        raise ValueError(
            f"{study.detector.path}: {type(evaluation).__name__} does not say which metric matters; give --metric NAME."
        )
    return str(evaluation.headline[-1])


def _run_cell(cell: Cell, number: str, work_dir: Path, run: StudyRun, train: Train) -> bool:
    """Run or resume a cell; returns whether it is finished."""
    folder = work_dir / cell.folder
    config = cell.config
    if cell.needs is not None:
        found = read_cell(work_dir, cell.needs)
        assert found is not None  # the plan puts pre-trainings first
        encoder = checkpoint_root(work_dir / cell.needs.folder)
        config = with_sections(config, init={"encoder": str(step_directory(encoder, found["steps"]))})
    say(f"\n{number}: {cell}{' (goes on)' if can_go_on(folder) else ''}")
    trainer = train_or_go_on(config, folder, run.device, train)
    if not trainer.is_done:
        return False
    write_json(folder / CELL_FILE, _describe(cell, trainer))
    if cell.kind == "finetune":  # its weights stay; a study of sixty cells would fill the disk with optimizer states
        shutil.rmtree(checkpoint_root(folder), ignore_errors=True)
    return True


def _describe(cell: Cell, trainer: Trainer) -> dict[str, Any]:
    progress = trainer.progress
    origin = progress.origin
    return {
        "key": cell.key,
        "kind": cell.kind,
        "init": cell.init,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "config": cell.config.name,
        "steps": progress.step,
        "effective_batch": trainer.order.effective_batch,
        "training_frames": len(trainer.dataset),
        "encoder_tensors": f"{origin['tensors_loaded']}/{origin['tensors_total']}" if origin else None,
        "pretraining_key": None if cell.needs is None else cell.needs.key,
        "metrics": dict(progress.metrics),
        "training_seconds": round(progress.seconds, 3),
        **describe_machine(trainer.processes.device),
    }


def _collect(study: Study, cells: Sequence[Cell], work_dir: Path, metric: str, run: StudyRun) -> StudyResults:
    found = [(cell, read_cell(work_dir, cell)) for cell in cells]
    return collect_results(
        [content for _, content in found if content is not None],
        planned=len(cells),
        inits=study.inits,
        fractions=study.fractions,
        seeds=study.seeds,
        metric=metric,
        about={
            "detector": study.detector.name,
            "pretraining": {name: study.pretraining[name].name for name in study.inits if name in study.pretraining},
            "budget": study.budget,
            "subset": study.subset,
            "seeds": study.seeds,
            "command": list(run.command),
        },
    )
