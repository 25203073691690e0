"""The cells of a study of optimisers: which runs it consists of, and which of them are known yet.

Four kinds of cells. *grid*: a method in one of its settings, with a seed of its own, scored on the validation split
only. *tuned*: a method in its best setting, one seed, scored on the test split. *default*: likewise with the strategy's
default strengths and a learning rate that is the same for all. *scaling*: the best setting, with more workers and fewer
steps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import adperception
from adperception.engine.optimizer_methods import (
    CONFIGURATIONS,
    DEFAULT_METHODS,
    METHODS,
    REFERENCE,
    Setting,
    known_methods,
)
from adperception.engine.optimizer_run import RunSpec
from adperception.engine.study_task import SHARDINGS, Sharding, Split, StudyTask

__all__ = ["Choice", "Found", "OptimizerStudy", "Planned", "Planner", "Purpose", "StudyCell"]

Purpose = Literal["grid", "tuned", "default", "scaling"]

Found = Callable[["StudyCell"], "Mapping[str, Any] | str | None"]
"""What a cell found, why it failed, or ``None`` if it is still to be run."""

TUNING_SEED = 1000
"""Not one of the seeds that count, which begin at 0."""


@dataclass(frozen=True)
class OptimizerStudy:
    """What is compared.

    Attributes:
        methods: names in ``METHODS``; the reference is always among them.
        shardings: who trains on what; the study is made for each.
        workers: numbers of workers; the methods are tuned and compared with the first, and scaled to all if there are
            several.
        seeds: number of seeds of the runs that count.
        steps: local steps of a run, per worker.
        batch_size: of one worker.
        sync_every: local steps between two rounds.
        drop_at: share of the steps after which the learning rate drops to a tenth.
        configurations: settings tried per method.
        default_learning_rate: of the runs with default strengths.
        scaling_steps: local steps of a scaling run.
    """

    methods: tuple[str, ...] = tuple(DEFAULT_METHODS)
    shardings: tuple[Sharding, ...] = ("fixed", "skewed")
    workers: tuple[int, ...] = (4,)
    seeds: int = 5
    steps: int = 400
    batch_size: int = 32
    sync_every: int = 16
    drop_at: float = 0.75
    configurations: int = CONFIGURATIONS
    default_learning_rate: float = 0.1
    scaling_steps: int = 64

    def __post_init__(self) -> None:
        if REFERENCE not in known_methods(self.methods):
            object.__setattr__(self, "methods", (REFERENCE, *self.methods))
        for sharding in self.shardings:
            if sharding not in SHARDINGS:
                raise ValueError(f"--sharding {sharding} is unknown. Available: {', '.join(SHARDINGS)}.")
        for name, low, high in (
            ("seeds", 1, TUNING_SEED),
            ("steps", 1, math.inf),
            ("batch_size", 1, math.inf),
            ("sync_every", 1, math.inf),
            ("configurations", 1, CONFIGURATIONS),
            ("scaling_steps", 1, math.inf),
        ):
            if not low <= getattr(self, name) <= high:
                limit = "" if high == math.inf else f", at most {high:g}"
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be {low:g} or more{limit}.")
        if not 0 < self.drop_at <= 1:
            raise ValueError(f"--drop-at {self.drop_at:g} must be above 0, at most 1 (no drop).")
        if not self.workers or min(self.workers) < 2:
            raise ValueError(f"--workers {' '.join(map(str, self.workers))}: give numbers of at least 2.")
        if not self.default_learning_rate > 0:
            raise ValueError(f"--default-learning-rate {self.default_learning_rate:g} must be positive.")


@dataclass(frozen=True)
class StudyCell:
    """One run.

    Attributes:
        purpose: what it is for.
        spec: the run.
        key: hash of all that decides its outcome.
    """

    purpose: Purpose
    spec: RunSpec
    key: str

    @property
    def folder(self) -> Path:
        """Where the run lies, below the study's work directory."""
        spec = self.spec
        return Path(spec.sharding, spec.method, f"{self.purpose}_{spec.workers}_seed_{spec.seed}_{self.key[:12]}")

    def __str__(self) -> str:
        spec = self.spec
        return (
            f"{self.purpose}: {spec.sharding}, {spec.method}, {spec.workers} workers, seed {spec.seed}, {spec.setting}"
        )


@dataclass(frozen=True)
class Choice:
    """How a method came by its setting.

    Attributes:
        scores: metric on the validation split by setting; NaN for a run that failed, none for one not yet run.
        best: the chosen setting; ``None`` while runs are missing, or if all failed.
    """

    scores: Mapping[Setting, float]
    best: Setting | None


@dataclass(frozen=True)
class Planned:
    """A place in the study; ``cell`` is ``None`` as long as what it depends on is missing."""

    purpose: Purpose
    sharding: Sharding
    method: str
    workers: int
    seed: int
    cell: StudyCell | None


class Planner:
    """Makes the plan of a study from what has been found so far.

    Attributes:
        study: what is compared.
        task: what is learned.

    Raises:
        ValueError: if the task has no such sharding, or its data cannot be divided between so many workers.
    """

    def __init__(self, study: OptimizerStudy, task: StudyTask) -> None:
        self.study, self.task = study, task
        for sharding in study.shardings:
            if sharding not in task.shardings:
                raise ValueError(f"--sharding {sharding}: {task.name} has {', '.join(task.shardings)}.")
            for workers in study.workers if sharding == study.shardings[0] else study.workers[:1]:
                task.batches(workers, TUNING_SEED, sharding, study.batch_size, steps=1)
        self._identity = task.identity()
        self._cells: dict[tuple[Any, ...], StudyCell] = {}

    def plan(self, found: Found) -> list[Planned]:
        """All places: by sharding the grids and first seeds, then the other seeds; at last the scaling runs."""
        study, first = self.study, self.study.workers[0]
        places: list[Planned] = []
        for sharding in study.shardings:
            for seed in range(study.seeds):
                for method in study.methods:
                    if seed == 0:
                        grid = self.grid(method, sharding).values()
                        places += [Planned("grid", sharding, method, first, TUNING_SEED, cell) for cell in grid]
                    cell = self.tuned(method, sharding, seed, found)
                    places.append(Planned("tuned", sharding, method, first, seed, cell))
                    if METHODS[method].has_options:
                        cell = self.default(method, sharding, seed)
                        places.append(Planned("default", sharding, method, first, seed, cell))
        if len(study.workers) > 1:
            sharding = study.shardings[0]
            for workers in sorted(study.workers):
                for method in study.methods:
                    cell = self.scaled(method, sharding, workers, found)
                    places.append(Planned("scaling", sharding, method, workers, 0, cell))
        return places

    def grid(self, method: str, sharding: Sharding) -> dict[Setting, StudyCell]:
        """The runs on the validation split."""
        return {
            setting: self._cell("grid", method, sharding, setting, TUNING_SEED)
            for setting in METHODS[method].settings(self.study.configurations)
        }

    def choice(self, method: str, sharding: Sharding, found: Found) -> Choice:
        """The setting with the best metric; of equal ones that with the lower training loss."""
        sign = self.task.metric.sign
        scores: dict[Setting, float] = {}
        ranks: dict[Setting, tuple[float, float]] = {}
        for setting, cell in self.grid(method, sharding).items():
            outcome = found(cell)
            if isinstance(outcome, str):
                scores[setting] = math.nan
            elif outcome is not None:
                scores[setting] = outcome["score"]
                ranks[setting] = (sign * outcome["score"], -outcome["training_loss"])
        settled = len(scores) == self.study.configurations
        return Choice(scores, max(ranks, key=ranks.__getitem__) if settled and ranks else None)

    def tuned(self, method: str, sharding: Sharding, seed: int, found: Found) -> StudyCell | None:
        """A run in the best setting; ``None`` while that is open."""
        best = self.choice(method, sharding, found).best
        return None if best is None else self._cell("tuned", method, sharding, best, seed)

    def default(self, method: str, sharding: Sharding, seed: int) -> StudyCell:
        """A run with default strengths."""
        return self._cell("default", method, sharding, Setting(self.study.default_learning_rate), seed)

    def scaled(self, method: str, sharding: Sharding, workers: int, found: Found) -> StudyCell | None:
        """A short run with so many workers; ``None`` while the best setting is open."""
        best = self.choice(method, sharding, found).best
        return None if best is None else self._cell("scaling", method, sharding, best, 0, workers)

    def _cell(
        self,
        purpose: Purpose,
        method: str,
        sharding: Sharding,
        setting: Setting,
        seed: int,
        workers: int | None = None,
    ) -> StudyCell:
        name = (purpose, method, sharding, setting, seed, workers)
        if name not in self._cells:
            self._cells[name] = self._new_cell(*name)
        return self._cells[name]

    def _new_cell(
        self, purpose: Purpose, method: str, sharding: Sharding, setting: Setting, seed: int, workers: int | None
    ) -> StudyCell:
        study = self.study
        split: Split = "validation" if purpose == "grid" else "test"
        spec = RunSpec(
            method=method,
            setting=setting,
            sharding=sharding,
            workers=workers or study.workers[0],
            seed=seed,
            steps=study.scaling_steps if purpose == "scaling" else study.steps,
            batch_size=study.batch_size,
            sync_every=study.sync_every,
            drop_at=study.drop_at,
            split=split,
            curve=purpose != "grid",
        )
        # The strategy is written out, so that another default gives another cell.
        content = {
            "run": asdict(spec),
            "strategy": repr(METHODS[method].build(setting)),
            "task": self._identity,
            "version": adperception.__version__,
        }
        return StudyCell(purpose, spec, hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())
