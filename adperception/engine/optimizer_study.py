"""Which optimiser is better? Runs the cells of a study of optimisers, one after the other, and sums them up.

A finished cell is never run again; one that fails is recorded and the others go on (the next start tries it again). The
same command may be started several times at once: each start takes cells that no other one holds.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from adperception.engine.cell_runs import POLL_SECONDS, time_limit
from adperception.engine.cells import CELL_FILE, read_cell
from adperception.engine.claims import claimed
from adperception.engine.communication_plan import Hardware
from adperception.engine.console import say
from adperception.engine.optimizer_run import RunSpec, run_simulated
from adperception.engine.optimizer_study_plan import OptimizerStudy, Planned, Planner, StudyCell
from adperception.engine.optimizer_study_report import StudyResults, collect_results, write_report
from adperception.engine.results import describe_machine, write_json
from adperception.engine.study_task import StudyTask

__all__ = ["FAILURE_FILE", "StudyRun", "run_optimizer_study"]

FAILURE_FILE = "failed.json"

_REPORT_EVERY_SECONDS = 60.0

Simulate = Callable[[StudyTask, RunSpec], dict[str, Any]]


@dataclass(frozen=True)
class StudyRun:
    """How a study is carried out.

    Attributes:
        work_dir: where everything is written.
        hardware: what the modelled time is for. Other hardware changes tables and plots, but no cell.
        time_limit_minutes: no cell is begun after this long.
        command: for the results file.
    """

    work_dir: Path
    hardware: Hardware
    time_limit_minutes: float | None = None
    command: Sequence[str] = ()


def run_optimizer_study(
    study: OptimizerStudy, task: StudyTask, run: StudyRun, simulate: Simulate = run_simulated
) -> StudyResults:
    """Run what is not done yet; write ``results.json``, ``results.md`` and ``results.png``.

    Args:
        study: what is compared.
        task: on what.
        run: where and for how long.
        simulate: what carries out a run, for tests.

    Returns:
        The results so far.

    Raises:
        ValueError: for anything that does not fit, before the first cell.
    """
    state = _Study(study, task, run, simulate)
    places = state.plan()
    done = sum(place.cell is not None and state.found(place.cell) is not None for place in places)
    say(f"{len(places)} cells, {done} done; results in {run.work_dir}")
    reported = time.monotonic()
    with time_limit(run.time_limit_minutes) as is_over:
        while state.run_next(is_over):
            if time.monotonic() - reported > _REPORT_EVERY_SECONDS:
                state.report()
                reported = time.monotonic()
    results = state.report()
    if not results.is_complete:
        say(f"{len(results.places) - results.finished} cells are left; the same command goes on from here")
    return results


class _Study:
    """The state of one start."""

    def __init__(self, study: OptimizerStudy, task: StudyTask, run: StudyRun, simulate: Simulate) -> None:
        self._task, self._run, self._simulate = task, run, simulate
        self._work_dir = run.work_dir.resolve()
        self._started = time.time()
        self._planner = Planner(study, task)
        self._finished: dict[str, Mapping[str, Any]] = {}

    def plan(self) -> list[Planned]:
        return self._planner.plan(self.found)

    def found(self, cell: StudyCell) -> Mapping[str, Any] | str | None:
        """What is known of a cell: its results, why it failed since this start, or nothing."""
        if cell.key in self._finished:
            return self._finished[cell.key]
        content = read_cell(self._work_dir, cell)
        if content is not None:
            self._finished[cell.key] = content
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
        held = False
        for place in self.plan():
            if is_over():
                return False
            cell = place.cell
            if cell is None or self.found(cell) is not None:
                continue
            with claimed(self._work_dir / cell.folder) as mine:
                # It may have been finished between the look and the claim.
                if mine and self.found(cell) is None:
                    self._run_cell(cell)
                    return not is_over()
            held = True
        if held:
            time.sleep(POLL_SECONDS)
        return held and not is_over()

    def report(self) -> StudyResults:
        """Write the results so far."""
        about = {"command": list(self._run.command), **describe_machine(torch.device("cpu"))}
        results = collect_results(self._planner, self.found, self._run.hardware, about)
        write_report(results, self._run.work_dir)
        return results

    def _run_cell(self, cell: StudyCell) -> None:
        """Run a cell; a failure is written down."""
        folder = self._work_dir / cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        try:
            found = self._simulate(self._task, cell.spec)
        except Exception as error:  # whatever it is, the other cells are worth having
            write_json(folder / FAILURE_FILE, {"error": str(error), "traceback": traceback.format_exc()})
            say(f"{_clock()}  {cell} failed: {type(error).__name__}: {error}")
            return
        write_json(folder / CELL_FILE, {"key": cell.key, "purpose": cell.purpose, **asdict(cell.spec), **found})
        say(f"{_clock()}  {cell}: {self._task.metric.name} {found['score']:.2f}, {found['cpu_seconds']:.1f} s")


def _clock() -> str:
    return time.strftime("%H:%M:%S")
