"""The cells of a model comparison: which runs it consists of, with which config, and which of them are known yet.

Three kinds of cells. *grid*: a model at one learning rate of the grid, first seed, judged on validation frames.
*samples*: a model at its best rate, one seed, the same number of training samples for every model. *seconds*: likewise,
with as many samples as the model got through in the same computing time. The last two are scored on the test split.
What a later cell is depends on what earlier ones found, so a plan is made anew whenever something is finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adperception.config import Config, nearest
from adperception.engine.cells import NEVER, cell_key, data_version, few_checkpoints, with_sections
from adperception.engine.settings import parse_settings

__all__ = ["Cell", "Choice", "Comparison", "Found", "Planned", "Planner", "Purpose", "on_test_frames"]

Purpose = Literal["grid", "samples", "seconds"]

Found = Callable[["Cell"], "Mapping[str, Any] | str | None"]
"""What a cell found, why it failed, or ``None`` if it is still to be run."""


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        models: configs by name; cells are run in this order, so name the cheapest model first.
        reference: the model that the others are compared with.
        seeds: number of seeds of the runs that count.
        samples: training samples of a run, at least; rounded up to whole steps.
        learning_rates: the grid, the same for every model.
        grid_samples: training samples of a grid run; ``None``: as many as of the others.
        seconds: computing time of a run of the second comparison; ``None``: none.
        select: metric on the validation frames, to be maximised, that chooses the learning rate.
        test_split: the split that replaces the one of ``val_dataset`` for the final scores.
    """

    models: Mapping[str, Config]
    reference: str
    seeds: int = 3
    samples: int = 6000
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    grid_samples: int | None = None
    seconds: float | None = None
    select: str = "mean_dice"
    test_split: str = "Test"

    def __post_init__(self) -> None:
        if self.reference not in self.models:
            raise ValueError(f"--reference {self.reference} is not compared.{nearest(self.reference, [*self.models])}")
        rates = self.learning_rates
        if not rates or len(set(rates)) != len(rates) or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(f"--learning-rates {' '.join(f'{r:g}' for r in rates)}: give different ones above 0.")
        for name, value in (
            ("--seeds", self.seeds),
            ("--samples", self.samples),
            ("--grid-samples", self.grid_samples),
            ("--seconds", self.seconds),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} {value:g} must be positive.")
        for config in self.models.values():
            _check(config)


@dataclass(frozen=True)
class Cell:
    """One run. A grid run and a final one with the same rate, seed and samples are the same run in the same folder.

    Attributes:
        purpose: what it is for.
        model: which model.
        seed: of the run.
        learning_rate: at the start of the schedule.
        samples: how many training samples it sees.
        config: its config.
        key: hash of all that decides its outcome.
    """

    purpose: Purpose
    model: str
    seed: int
    learning_rate: float
    samples: int
    config: Config
    key: str

    @property
    def folder(self) -> Path:
        """Where the run lies, below the study's work directory."""
        return Path(self.model, f"{self.samples}_lr_{self.learning_rate:g}_seed_{self.seed}_{self.key[:12]}")

    def __str__(self) -> str:
        return (
            f"{self.purpose}: {self.model}, seed {self.seed}, learning rate {self.learning_rate:g}, "
            f"{self.samples:,} samples"
        )


@dataclass(frozen=True)
class Choice:
    """How a model came by its learning rate.

    Attributes:
        scores: metric on the validation frames by rate; NaN for a run that failed, none for one not yet run.
        best: the chosen rate; ``None`` while runs are missing, or if all failed.
        all_failed: whether no rate can be chosen.
    """

    scores: Mapping[float, float]
    best: float | None
    all_failed: bool = False

    def at_the_edge(self, rates: tuple[float, ...]) -> bool:
        """Whether the chosen rate is the smallest or largest of several, so that a better one may lie outside."""
        return len(rates) > 1 and self.best in (min(rates), max(rates))


@dataclass(frozen=True)
class Planned:
    """A place in the study; ``cell`` is ``None`` as long as what it depends on is missing."""

    purpose: Purpose
    model: str
    seed: int
    cell: Cell | None


class Planner:
    """Makes the plan of a comparison from what has been found so far. The data must be there.

    Attributes:
        comparison: what is compared.
        test_data: which frames the models are scored on at the end, the same for all of them.

    Raises:
        ValueError: if the models are not trained, validated and scored on the same frames.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._data = {name: data_version(config) for name, config in comparison.models.items()}
        tests = {
            name: data_version(on_test_frames(config, comparison.test_split))["val_dataset"]
            for name, config in comparison.models.items()
        }
        for part in ("train_dataset", "val_dataset"):
            _require_equal(part, {name: data[part] for name, data in self._data.items()})
        _require_equal(f"split {comparison.test_split}", tests)
        self.test_data: Mapping[str, Any] = tests[comparison.reference]

    def plan(self, found: Found) -> list[Planned]:
        """All places, the cheap and telling ones first.

        Model by model the grid and the first seed, then the other seeds, then the comparison at equal seconds seed by
        seed: wherever the study is stopped, what is done is a comparison over fewer seeds.
        """
        study = self.comparison
        places: list[Planned] = []
        for seed in range(study.seeds):
            for model in study.models:
                if seed == 0:
                    places += [Planned("grid", model, 0, cell) for cell in self.grid(model).values()]
                places.append(Planned("samples", model, seed, self.at_equal_samples(model, seed, found)))
        if study.seconds is not None:
            for seed in range(study.seeds):
                for model in study.models:
                    places.append(Planned("seconds", model, seed, self.at_equal_seconds(model, seed, found)))
        return places

    def grid(self, model: str) -> dict[float, Cell]:
        """The grid runs of a model by learning rate."""
        study = self.comparison
        samples = study.grid_samples or study.samples
        return {rate: self._cell("grid", model, 0, rate, samples) for rate in study.learning_rates}

    def choice(self, model: str, found: Found) -> Choice:
        """The rate with the best metric on the validation frames; of equal ones the smallest.

        Raises:
            ValueError: if the evaluations do not give the metric.
        """
        scores: dict[float, float] = {}
        for rate, cell in self.grid(model).items():
            outcome = found(cell)
            if isinstance(outcome, str):
                scores[rate] = math.nan
            elif outcome is not None:
                scores[rate] = self._selection(outcome["validation"])
        present = {rate: score for rate, score in sorted(scores.items()) if not math.isnan(score)}
        settled = len(scores) == len(self.comparison.learning_rates)
        best = max(present, key=present.__getitem__) if settled and present else None
        return Choice(scores, best, all_failed=settled and not present)

    def at_equal_samples(self, model: str, seed: int, found: Found) -> Cell | None:
        """A model's run with the common number of samples; ``None`` while its learning rate is open."""
        rate = self.choice(model, found).best
        return None if rate is None else self._cell("samples", model, seed, rate, self.comparison.samples)

    def at_equal_seconds(self, model: str, seed: int, found: Found) -> Cell | None:
        """A model's run in the common time; ``None`` while its speed is unknown.

        The speed is that of its equal-sample run of the first seed, so that further seeds change nothing.
        """
        measured = self.at_equal_samples(model, 0, found)
        outcome = None if measured is None else found(measured)
        if measured is None or not isinstance(outcome, Mapping) or self.comparison.seconds is None:
            return None
        batch = outcome["effective_batch"]
        steps = math.floor(self.comparison.seconds * outcome["steps"] / outcome["clock_seconds"])
        return self._cell("seconds", model, seed, measured.learning_rate, max(1, steps) * batch)

    def _cell(self, purpose: Purpose, model: str, seed: int, rate: float, samples: int) -> Cell:
        config = _run_config(self.comparison.models[model], rate, samples, seed)
        train = config.values["train"]
        seen = train["steps"] * train["batch_size"] * train.get("accumulate_steps", 1)
        return Cell(purpose, model, seed, rate, seen, config, cell_key(config.values, self._data[model]))

    def _selection(self, metrics: Mapping[str, float | None]) -> float:
        name = self.comparison.select
        if name not in metrics:
            raise ValueError(f"--select {name}: not measured on the validation frames.{nearest(name, [*metrics])}")
        value = metrics[name]
        return -math.inf if value is None else value


def on_test_frames(config: Config, split: str) -> Config:
    """The config with the frames of another split for its evaluations."""
    return with_sections(config, val_dataset={**config.values["val_dataset"], "split": split})


def _run_config(config: Config, rate: float, samples: int, seed: int) -> Config:
    """A run of whole batches that is evaluated and judged at its last step only."""
    values = config.values
    train: dict[str, Any] = {key: value for key, value in values["train"].items() if key not in ("epochs", "steps")}
    batch = train["batch_size"] * train.get("accumulate_steps", 1)
    train |= {"steps": -(-samples // batch), "drop_last": True}
    return with_sections(
        config,
        optimizer={**values["optimizer"], "lr": rate},
        train=train,
        evaluations=[{**section, "every_epochs": NEVER} for section in values["evaluations"]],
        checkpoint=few_checkpoints(train),
        seed=seed,
    )


def _check(config: Config) -> None:
    settings = parse_settings(config.values)
    if not settings.evaluations or settings.val_dataset is None:
        raise ValueError(f"{config.path}: the comparison needs a val_dataset and evaluations.")
    if not any(section.get("type") == "RadarSegmentation" for section in settings.evaluations):
        raise ValueError(
            f"{config.path}: the tables are made of what RadarSegmentation measures; add "
            'dict(type="RadarSegmentation") to its evaluations.'
        )
    if settings.init is not None:
        raise ValueError(f"{config.path}: every model starts from random weights; take out the init section.")


def _require_equal(what: str, data: Mapping[str, Mapping[str, Any]]) -> None:
    (first, expected), *others = data.items()
    for name, found in others:
        if found != expected:
            raise ValueError(
                f"{what}: {first} and {name} have different frames ({expected['frames']} and {found['frames']}). A "
                "fair comparison needs the same ones for all models; models that look at fewer moments must leave out "
                "the same first frames of a sequence."
            )
