"""Which cells a comparison has, in which order, and what is held equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adperception.config import load_config
from adperception.engine.model_comparison_plan import Cell, Comparison, Planner, on_test_frames
from adperception.engine.settings import parse_settings

from toy_comparison import toy_comparison


class Known:
    """What was found, by purpose, model, seed and learning rate; ``Cell`` in, outcome out."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str, int, float], Mapping[str, Any] | str] = {}

    def __call__(self, cell: Cell) -> Mapping[str, Any] | str | None:
        return self.outcomes.get((cell.purpose, cell.model, cell.seed, cell.learning_rate))

    def add(self, purpose: str, model: str, seed: int, rate: float, score: float | None = None, **more: Any) -> None:
        self.outcomes[purpose, model, seed, rate] = {"validation": {"mean_dice": score}, **more}


@pytest.fixture
def study(tmp_path: Path) -> Comparison:
    return toy_comparison(tmp_path, seconds=10.0, grid_samples=4)


def test_order_model_by_model_then_seed_by_seed(study: Comparison) -> None:
    places = Planner(study).plan(Known())
    assert [(p.purpose, p.model, p.seed) for p in places] == [
        *[("grid", "small", 0)] * 2,
        ("samples", "small", 0),
        *[("grid", "large", 0)] * 2,
        ("samples", "large", 0),
        ("samples", "small", 1),
        ("samples", "large", 1),
        ("seconds", "small", 0),
        ("seconds", "large", 0),
        ("seconds", "small", 1),
        ("seconds", "large", 1),
    ]
    assert [place.cell is not None for place in places] == [p.purpose == "grid" for p in places]


def test_whole_batches_of_equal_number_and_judged_at_the_end_only(study: Comparison) -> None:
    planner, known = Planner(study), Known()
    for rate in (0.001, 0.03):
        known.add("grid", "small", 0, rate, score=50 * rate)
    (grid, *_), cell = planner.grid("small").values(), planner.at_equal_samples("small", 1, known)
    assert grid.samples == 6  # 4, in whole batches of 3
    assert cell is not None
    assert (cell.samples, cell.learning_rate, cell.seed) == (9, 0.03, 1)
    values = cell.config.values
    settings = parse_settings(values)
    assert (settings.train.steps, settings.train.epochs, settings.train.drop_last, settings.seed) == (3, None, True, 1)
    assert values["optimizer"] == {**study.models["small"].values["optimizer"], "lr": 0.03}
    assert values["evaluations"] == [{"type": "RadarSegmentation", "every_epochs": 10**9}]
    assert values["val_dataset"]["split"] == "Validation"
    assert on_test_frames(cell.config, "Test").values["val_dataset"]["split"] == "Test"
    assert cell.config.values["val_dataset"]["split"] == "Validation"


def test_learning_rate_is_chosen_on_validation_once_the_grid_is_settled(study: Comparison) -> None:
    planner, known = Planner(study), Known()
    known.add("grid", "small", 0, 0.001, score=40.0)
    assert planner.choice("small", known).best is None
    known.add("grid", "small", 0, 0.03, score=30.0)
    choice = planner.choice("small", known)
    assert (choice.best, choice.scores) == (0.001, {0.001: 40.0, 0.03: 30.0})
    assert choice.at_the_edge((0.001, 0.03))
    assert not choice.at_the_edge((0.0001, 0.001, 0.03))
    assert not choice.at_the_edge((0.001,))
    assert planner.choice("large", known).best is None

    known.outcomes["grid", "small", 0, 0.001] = "the loss is not finite"
    assert planner.choice("small", known).best == 0.03
    known.outcomes["grid", "small", 0, 0.03] = "the loss is not finite"
    choice = planner.choice("small", known)
    assert (choice.best, choice.all_failed) == (None, True)
    known.add("grid", "small", 0, 0.03)  # undefined: the worst, but finished
    assert planner.choice("small", known).best == 0.03
    with pytest.raises(ValueError, match=r'--select mean_dise: not measured.*Did you mean "mean_dice"'):
        Planner(replace(study, select="mean_dise")).choice("small", known)


def test_equal_seconds_follow_from_the_first_seeds_speed(study: Comparison) -> None:
    planner, known = Planner(study), Known()
    for rate in (0.001, 0.03):
        known.add("grid", "small", 0, rate, score=1.0)
    assert planner.at_equal_seconds("small", 1, known) is None
    known.add("samples", "small", 0, 0.001, steps=3, effective_batch=3, clock_seconds=4.0)
    before = planner.at_equal_seconds("small", 1, known)
    assert before is not None
    assert (before.purpose, before.samples, before.seed) == ("seconds", 7 * 3, 1)  # 10 s at 4/3 s per step
    known.add("samples", "small", 1, 0.001, steps=3, effective_batch=3, clock_seconds=9.0)
    after = planner.at_equal_seconds("small", 1, known)
    assert after is not None
    assert after.key == before.key
    known.add("samples", "small", 0, 0.001, steps=3, effective_batch=3, clock_seconds=400.0)
    slow = planner.at_equal_seconds("small", 0, known)
    assert slow is not None
    assert slow.samples == 3  # one step at least


def test_equal_runs_share_a_folder_and_other_data_have_another(study: Comparison, tmp_path: Path) -> None:
    whole = replace(study, grid_samples=None)
    planner, known = Planner(whole), Known()
    for rate in (0.001, 0.03):
        known.add("grid", "small", 0, rate, score=1.0)
    final = planner.at_equal_samples("small", 0, known)
    assert final is not None
    assert final.folder == planner.grid("small")[0.001].folder
    folders = [place.cell.folder for place in planner.plan(known) if place.cell is not None]
    assert len(folders) == 6
    assert len(set(folders)) == 5

    other = load_config(whole.models["small"].path, ["model.width=3"])
    changed = Planner(replace(whole, models={**whole.models, "small": other}))
    assert changed.grid("small")[0.001].folder != planner.grid("small")[0.001].folder
    assert changed.grid("large")[0.001].folder == planner.grid("large")[0.001].folder


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_dataset.leave_out=1", "train_dataset: small and large have different frames \\(11 and 12\\)"),
        ("val_dataset.leave_out=2", "val_dataset: small and large have different frames \\(4 and 6\\)"),
    ],
)
def test_different_frames_are_refused(study: Comparison, override: str, message: str) -> None:
    other = load_config(study.models["small"].path, [override])
    with pytest.raises(ValueError, match=message):
        Planner(replace(study, models={**study.models, "small": other}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "larger"}, '--reference larger is not compared. Did you mean "large"'),
        ({"learning_rates": (0.1, 0.1)}, "--learning-rates 0.1 0.1"),
        ({"learning_rates": ()}, "--learning-rates"),
        ({"seconds": 0.0}, "--seconds 0 must be positive"),
        ({"samples": -1}, "--samples -1 must be positive"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_comparison(tmp_path, **options)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluations=[]"], "needs a val_dataset and evaluations"),
        (["evaluations.0.type=RadarDetection"], 'add dict\\(type="RadarSegmentation"\\)'),
        (["init.weights=somewhere"], "take out the init section"),
    ],
)
def test_configs_that_cannot_be_compared(study: Comparison, overrides: list[str], message: str) -> None:
    other = load_config(study.models["small"].path, overrides)
    with pytest.raises(ValueError, match=message):
        replace(study, models={**study.models, "small": other})
