"""Which model is better? Runs the cells of a model comparison, one after the other, and sums them up.

A finished cell is never run again, an interrupted one goes on from its checkpoint, one that fails is recorded and the
others go on (the next start tries it again). The same command may be started several times at once, for several cores
or GPUs: each start takes cells that no other one holds.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adperception.config import Config
from adperception.engine.cell_runs import (
    CONSOLE_FILE,
    POLL_SECONDS,
    Train,
    can_go_on,
    make_data_once,
    printed_to,
    time_limit,
    train_or_go_on,
)
from adperception.engine.cells import CELL_FILE, bare_dataset, read_cell, with_sections
from adperception.engine.checkpointing import checkpoint_root
from adperception.engine.claims import claimed
from adperception.engine.console import say
from adperception.engine.distributed import launched_processes, start_processes
from adperception.engine.evaluate import evaluate_weights
from adperception.engine.hooks.run_report import WEIGHTS_FILE
from adperception.engine.model_comparison_plan import Cell, Comparison, Planned, Planner, on_test_frames
from adperception.engine.model_comparison_report import ComparisonResults, collect_results, write_report
from adperception.engine.multiply_adds import multiply_adds_of
from adperception.engine.results import describe_machine, write_json
from adperception.engine.run import check_names, train
from adperception.engine.settings import parse_settings
from adperception.engine.trainer import Trainer
from adperception.registry import MODELS, build

__all__ = ["CONSOLE_FILE", "FAILURE_FILE", "TEST_FILE", "ComparisonRun", "run_comparison"]

TEST_FILE = "test.json"
FAILURE_FILE = "failed.json"

Evaluate = Callable[..., dict[str, float]]


@dataclass(frozen=True)
class ComparisonRun:
    """How a comparison is carried out.

    Attributes:
        work_dir: where everything is written.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.
        time_limit_minutes: after this long the running cell stops at its next step, with a checkpoint; an evaluation
            that has begun is finished.
        workers: data-loading processes of a run. With 0 the time for reading is in the computing time of the run.
        command: for the results file.
    """

    work_dir: Path
    device: str | None = None
    time_limit_minutes: float | None = None
    workers: int = 0
    command: Sequence[str] = ()


def run_comparison(
    comparison: Comparison, run: ComparisonRun, train: Train = train, evaluate: Evaluate = evaluate_weights
) -> ComparisonResults:
    """Run what is not done yet; write ``results.json``, ``results.md`` and ``results.png`` after every cell.

    Args:
        comparison: what is compared.
        run: where and for how long.
        train: what trains a config, for tests.
        evaluate: what scores weights on the test split, for tests.

    Returns:
        The results so far.

    Raises:
        ValueError: for anything that does not fit, before the first cell where possible.
    """
    if launched_processes() > 1:
        raise ValueError("compare_models runs in one process; start it without torchrun.")
    for config in comparison.models.values():
        check_names(parse_settings(config.values))
    study = _Study(comparison, run, train, evaluate)
    places = study.plan()
    done = sum(study.is_settled(place) for place in places)
    say(f"{len(places)} cells, {done} done; results in {run.work_dir}, what a run prints in its {CONSOLE_FILE}")
    with time_limit(run.time_limit_minutes) as is_over:
        while study.run_next(is_over):
            study.report()
    results = study.report()
    if not results.is_complete:
        say(f"{len(results.places) - results.finished} cells are left; the same command goes on from here")
    return results


class _Study:
    """The state of one start of a comparison."""

    def __init__(self, comparison: Comparison, run: ComparisonRun, train: Train, evaluate: Evaluate) -> None:
        self._comparison, self._run, self._train, self._evaluate = comparison, run, train, evaluate
        self._work_dir = run.work_dir.resolve()
        self._started = time.time()
        make_data_once(comparison.models.values(), self._work_dir)
        self._planner = Planner(comparison)
        self._sizes = {name: _multiply_adds(config) for name, config in comparison.models.items()}
        self._finished: dict[tuple[str, str], Mapping[str, Any]] = {}

    def plan(self) -> list[Planned]:
        return self._planner.plan(self.found)

    def is_settled(self, place: Planned) -> bool:
        return place.cell is not None and self.found(place.cell) is not None

    def found(self, cell: Cell) -> Mapping[str, Any] | str | None:
        """What is known of a cell: its results, why it failed since this start, or nothing."""
        name = (cell.key, cell.purpose)
        if name in self._finished:
            return self._finished[name]
        content = read_cell(self._work_dir, cell)
        if content is not None and cell.purpose != "grid":
            test = self._test_scores(cell)
            content = None if test is None else {**content, "test": test}
        if content is not None:
            self._finished[name] = content
            return content
        failure = self._work_dir / cell.folder / FAILURE_FILE
        if failure.is_file() and failure.stat().st_mtime >= self._started:
            return str(json.loads(failure.read_text(encoding="utf-8"))["error"])
        return None

    def run_next(self, is_over: Callable[[], bool]) -> bool:
        """Run the first cell that is known, not done, and in nobody else's hands, or wait for those that are.

        Returns:
            Whether there may be more to do.
        """
        places = self.plan()
        held = False
        for number, place in enumerate(places, start=1):
            if is_over():
                return False
            cell = place.cell
            if cell is None or self.found(cell) is not None:
                continue
            with claimed(self._work_dir / cell.folder) as mine:
                # It may have been finished between the look and the claim.
                if mine and self.found(cell) is None:
                    return self._run_cell(cell, f"cell {number} of {len(places)}") and not is_over()
            held = True
        if held:
            time.sleep(POLL_SECONDS)
        return held and not is_over()

    def report(self) -> ComparisonResults:
        """Write the results so far."""
        results = collect_results(
            self._comparison,
            self._planner,
            self.found,
            self._sizes,
            about={"test_data": self._planner.test_data, "command": list(self._run.command)},
        )
        write_report(results, self._run.work_dir)
        return results

    def _run_cell(self, cell: Cell, number: str) -> bool:
        """Run or go on with a cell; a failure is written down. Returns whether it came to an end."""
        folder = self._work_dir / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        say(f"{_clock()}  {number}, {cell}: {'goes on' if can_go_on(folder) else 'begins'} in {cell.folder}")
        try:
            with printed_to(folder / CONSOLE_FILE):
                finished = self._train_cell(cell, folder)
                if finished and cell.purpose != "grid":
                    self._test_cell(cell, folder)
        except Exception as error:  # whatever it is, the other cells are worth having
            write_json(folder / FAILURE_FILE, {"error": str(error), "traceback": traceback.format_exc()})
            say(f"{_clock()}  {number} failed: {type(error).__name__}: {error}")
            return True
        say(f"{_clock()}  {number} {self._sentence(cell) if finished else 'stopped, with a checkpoint'}")
        return finished

    def _train_cell(self, cell: Cell, folder: Path) -> bool:
        """Train unless that is done; returns whether it is now."""
        if read_cell(self._work_dir, cell) is not None:
            return True
        section = {**cell.config.values["train"], "workers": self._run.workers}
        trainer = train_or_go_on(with_sections(cell.config, train=section), folder, self._run.device, self._train)
        if not trainer.is_done:
            return False
        if not (folder / WEIGHTS_FILE).is_file():
            raise ValueError(f"the run left no {WEIGHTS_FILE}; the end of {folder / CONSOLE_FILE} says why.")
        write_json(folder / CELL_FILE, _describe(cell, trainer))
        shutil.rmtree(checkpoint_root(folder), ignore_errors=True)  # optimizer states of dozens of runs fill a disk
        return True

    def _test_cell(self, cell: Cell, folder: Path) -> None:
        device: torch.device = start_processes(self._run.device).device
        config = on_test_frames(cell.config, self._comparison.test_split)
        metrics = self._evaluate(config, folder / WEIGHTS_FILE, folder / "test", device, self._run.workers)
        write_json(folder / TEST_FILE, {"key": cell.key, "frames": self._planner.test_data, "metrics": dict(metrics)})

    def _test_scores(self, cell: Cell) -> dict[str, Any] | None:
        """The metrics on the test frames; ``None`` if they are missing or those of other frames."""
        path = self._work_dir / cell.folder / TEST_FILE
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["key"], content["frames"]) != (cell.key, self._planner.test_data):
            return None
        metrics: dict[str, Any] = content["metrics"]
        return metrics

    def _sentence(self, cell: Cell) -> str:
        found = self.found(cell)
        assert isinstance(found, Mapping)  # it was just finished
        name = self._comparison.select
        parts = [f"{part} {_number(found[part].get(name))}" for part in ("validation", "test") if part in found]
        return f"done: {found['steps']} steps in {found['clock_seconds']:.0f} s, {name} {', '.join(parts)}"


def _multiply_adds(config: Config) -> dict[str, float]:
    """Multiply-adds for one frame by situation; empty for a model that nobody can count."""
    model, dataset = build(MODELS, config.values["model"]), bare_dataset(config.values["val_dataset"])
    try:
        return {name: float(count.total) for name, count in multiply_adds_of(model, dataset.grid.shape).items()}
    except ValueError:
        return {}


def _describe(cell: Cell, trainer: Trainer) -> dict[str, Any]:
    progress, device = trainer.progress, trainer.processes.device
    # Other work on the machine lengthens the time of the clock, not that of the processor.
    clock = progress.cpu_seconds if device.type == "cpu" else progress.seconds
    return {
        "key": cell.key,
        "model": cell.model,
        "config": cell.config.name,
        "config_sha256": trainer.config.sha256(),
        "seed": cell.seed,
        "learning_rate": cell.learning_rate,
        "steps": progress.step,
        "skipped_steps": progress.skipped_steps,
        "effective_batch": trainer.order.effective_batch,
        "samples": progress.step * trainer.order.effective_batch,
        "training_frames": len(trainer.dataset),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "validation": dict(progress.metrics),
        "clock": "processor seconds" if device.type == "cpu" else "seconds",
        "clock_seconds": round(clock, 3),
        "seconds": round(progress.seconds, 3),
        **describe_machine(device),
    }


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
