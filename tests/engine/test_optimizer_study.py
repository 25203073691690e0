"""A whole small study: what is run, resumed, chosen, written, and refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adperception.engine.cells import CELL_FILE
from adperception.engine.digits import DigitsTask
from adperception.engine.optimizer_methods import CONFIGURATIONS, METHODS, Setting
from adperception.engine.optimizer_run import RunSpec, run_simulated
from adperception.engine.optimizer_study import FAILURE_FILE, StudyRun, run_optimizer_study
from adperception.engine.optimizer_study_plan import TUNING_SEED, OptimizerStudy, Planner
from adperception.engine.optimizer_study_report import markdown_report
from adperception.engine.study_task import StudyTask

from toy_study import HARDWARE, ToyTask

SMALL: dict[str, Any] = {
    "methods": ("DataParallel", "LSGD"),
    "shardings": ("fixed",),
    "workers": (2,),
    "seeds": 1,
    "steps": 4,
    "batch_size": 8,
    "sync_every": 2,
    "configurations": 2,
}


def study(**changes: Any) -> OptimizerStudy:
    return OptimizerStudy(**{**SMALL, **changes})


class Recorder:
    """Runs, and remembers what; fails where it is told to."""

    def __init__(self, fails: Mapping[tuple[str, int], str] | None = None) -> None:
        self.specs: list[RunSpec] = []
        self.fails = fails or {}

    def __call__(self, task: StudyTask, spec: RunSpec) -> dict[str, Any]:
        self.specs.append(spec)
        if (spec.method, spec.seed) in self.fails:
            raise FloatingPointError(self.fails[spec.method, spec.seed])
        return run_simulated(task, spec)


def test_every_method_has_equally_many_settings() -> None:
    for name, method in METHODS.items():
        every = method.settings()
        assert len(every) == len(set(every)) == CONFIGURATIONS, name
        for count in (1, 2, 5, CONFIGURATIONS):
            chosen = method.settings(count)
            assert len(set(chosen)) == count
            assert set(chosen) <= set(every)
        for setting in every:
            method.build(setting)


def test_a_study_of_digits(tmp_path: Path) -> None:
    run = StudyRun(tmp_path, HARDWARE, command=["x"])
    results = run_optimizer_study(study(), DigitsTask(), run)
    assert results.is_complete
    assert results.finished == 2 * 2 + 2 + 1  # grids, tuned, default of LSGD
    content = json.loads((tmp_path / "results.json").read_text())
    entries = {(e["purpose"], e["method"]): e for e in content["entries"]}
    assert set(entries) == {("tuned", "DataParallel"), ("tuned", "LSGD"), ("default", "LSGD")}
    assert len(entries["tuned", "LSGD"]["curve"]) == 2
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert "| LSGD | lr " in (tmp_path / "results.md").read_text()


def test_finished_cells_are_kept_and_more_seeds_add_to_them(tmp_path: Path) -> None:
    run, first = StudyRun(tmp_path, HARDWARE), Recorder()
    run_optimizer_study(study(), ToyTask(), run, first)
    before = {path: path.read_bytes() for path in tmp_path.rglob(CELL_FILE)}
    second = Recorder()
    results = run_optimizer_study(study(seeds=2), ToyTask(), run, second)
    assert [(spec.method, spec.seed) for spec in second.specs] == [("DataParallel", 1), ("LSGD", 1), ("LSGD", 1)]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert results.is_complete
    third = Recorder()
    slower = StudyRun(tmp_path, HARDWARE.__class__(HARDWARE.link, 0.5))
    again = run_optimizer_study(study(seeds=2), ToyTask(), slower, third)
    assert third.specs == []  # other hardware is arithmetic
    entry, old = again.entry("tuned", "fixed", "LSGD"), results.entry("tuned", "fixed", "LSGD")
    assert entry is not None
    assert old is not None
    assert entry.seconds == pytest.approx(old.seconds + 4 * 0.49)


def test_only_the_grid_sees_the_validation_split_and_its_seed(tmp_path: Path) -> None:
    recorder = Recorder()
    run_optimizer_study(study(), ToyTask(), StudyRun(tmp_path, HARDWARE), recorder)
    for spec in recorder.specs:
        assert (spec.split == "validation") == (spec.seed == TUNING_SEED)
        assert spec.curve == (spec.split == "test")


def test_the_best_setting_is_chosen_and_a_diverging_one_is_not() -> None:
    planner = Planner(study(configurations=3), ToyTask())
    grid = planner.grid("LSGD", "fixed")
    outcomes: list[Any] = ["it diverged", {"score": 90.0, "training_loss": 0.2}, {"score": 90.0, "training_loss": 0.1}]
    found = {cell.key: outcome for cell, outcome in zip(grid.values(), outcomes, strict=True)}
    choice = planner.choice("LSGD", "fixed", lambda cell: found.get(cell.key))
    assert choice.best == [*grid][2]
    del found[next(iter(grid.values())).key]
    assert planner.choice("LSGD", "fixed", lambda cell: found.get(cell.key)).best is None
    assert planner.tuned("LSGD", "fixed", 0, lambda cell: found.get(cell.key)) is None


def test_a_failure_is_written_down_and_tried_again(tmp_path: Path) -> None:
    run = StudyRun(tmp_path, HARDWARE)
    results = run_optimizer_study(study(), ToyTask(), run, Recorder({("LSGD", 0): "no luck"}))
    assert not results.is_complete
    assert len(results.failures) == 2
    text = markdown_report(results)
    assert "- default: fixed, LSGD, 2 workers, seed 0, lr 0.1: no luck" in text
    assert "| LSGD | missing | missing |" in text
    assert len([*tmp_path.rglob(FAILURE_FILE)]) == 2
    assert run_optimizer_study(study(), ToyTask(), run).is_complete
    assert not [*tmp_path.rglob(FAILURE_FILE)]


def test_scaling_runs_use_the_chosen_setting(tmp_path: Path) -> None:
    recorder = Recorder()
    options = study(workers=(2, 3, 5), scaling_steps=2)
    results = run_optimizer_study(options, ToyTask(), StudyRun(tmp_path, HARDWARE), recorder)
    scaling = [spec for spec in recorder.specs if spec.steps == 2]
    assert [(spec.workers, spec.method) for spec in scaling] == [
        (workers, method) for workers in (2, 3, 5) for method in ("DataParallel", "LSGD")
    ]
    chosen = results.choices["fixed", "LSGD"].best
    assert {spec.setting for spec in scaling if spec.method == "LSGD"} == {chosen}
    assert "| method | accuracy, 2 | accuracy, 3 | accuracy, 5 |" in markdown_report(results)


def test_the_reference_is_always_there() -> None:
    assert OptimizerStudy(methods=("LSGD",)).methods == ("DataParallel", "LSGD")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("LSDG",)}, '--methods LSDG is unknown. Did you mean "LSGD"'),
        ({"shardings": ("even",)}, "--sharding even is unknown"),
        ({"workers": (1,)}, "--workers 1: give numbers of at least 2"),
        ({"seeds": 0}, "--seeds 0 must be 1 or more"),
        ({"sync_every": 0}, "--sync-every 0 must be 1 or more"),
        ({"configurations": 13}, "--configurations 13 must be 1 or more, at most 12"),
        ({"drop_at": 0.0}, "--drop-at 0 must be above 0"),
        ({"default_learning_rate": 0.0}, "--default-learning-rate 0 must be positive"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**changes)


def test_a_sharding_that_the_task_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="--sharding dealt: toy has fixed, skewed"):
        Planner(study(shardings=("dealt",)), ToyTask())


def test_settings_read_well() -> None:
    assert str(Setting(0.03, (("pull", 0.1), ("proximal", 0.0)))) == "lr 0.03, pull 0.1, proximal 0"
