"""What a study of optimisers has found so far, summed up over seeds and compared with the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from adperception.engine.communication_plan import Costs, Hardware, costs_until
from adperception.engine.optimizer_methods import METHODS, NO_COMMUNICATION, REFERENCE, Setting
from adperception.engine.optimizer_study_plan import Choice, Found, OptimizerStudy, Planned, Planner, Purpose, StudyCell
from adperception.engine.study_task import Metric, Sharding
from adperception.evaluation.seed_statistics import Difference, Spread, spread, welch_difference
from adperception.optim import Strategy

__all__ = ["SHARE_OF_BYTES", "Entry", "StudyResults", "collect_results"]

SHARE_OF_BYTES = 0.1
"""A method that keeps up has to send at most this part of what the reference sends."""

_MEASURES = ("score", "best_worker", "mean_worker", "training_loss", "disagreement")


@dataclass(frozen=True)
class Entry:
    """A method over seeds.

    Attributes:
        method: its name.
        setting: learning rate and strengths.
        measures: spread over seeds of ``score`` (of the consensus), ``best_worker``, ``mean_worker``,
            ``training_loss`` and ``disagreement``.
        scores: of the consensus, by seed.
        bytes_sent: by all workers together; equal for all seeds but for random graphs.
        bytes_of_reference: as a part of what the reference sends.
        seconds: modelled, of the whole run.
        difference: of the scores to the reference's.
        verdict: in words.
        keeps_up: whether it meets the criterion; ``None`` if it is not asked to, or the reference is missing.
        curve: mean over seeds: rows of step, score, training loss, disagreement, bytes, modelled seconds.
    """

    method: str
    setting: Setting
    measures: Mapping[str, Spread]
    scores: Mapping[int, float]
    bytes_sent: float
    bytes_of_reference: float | None
    seconds: float
    difference: Difference | None
    verdict: str | None
    keeps_up: bool | None
    curve: Sequence[Sequence[float]]


@dataclass(frozen=True)
class StudyResults:
    """What a study has found so far.

    Attributes:
        study: what is compared.
        metric: what was scored.
        hardware: what the modelled time is for.
        places: every planned cell, with what was found: results, an error message, or ``None``.
        choices: settings by sharding and method.
        about: further facts for the results file.
    """

    study: OptimizerStudy
    metric: Metric
    hardware: Hardware
    places: Sequence[tuple[Planned, Mapping[str, Any] | str | None]]
    choices: Mapping[tuple[Sharding, str], Choice]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Number of finished cells, and of those of the grid that failed: settings that diverge are a finding."""
        return sum(isinstance(o, Mapping) or (isinstance(o, str) and p.purpose == "grid") for p, o in self.places)

    @property
    def failures(self) -> list[tuple[StudyCell, str]]:
        """The cells that failed in this start, with their messages."""
        return [(p.cell, o) for p, o in self.places if isinstance(o, str) and p.cell is not None]

    @property
    def is_complete(self) -> bool:
        """Whether every cell is finished."""
        return self.finished == len(self.places)

    def runs(self, purpose: Purpose, sharding: Sharding, method: str, workers: int) -> dict[int, Mapping[str, Any]]:
        """The finished runs of a method by seed."""
        return {
            place.seed: outcome
            for place, outcome in self.places
            if (place.purpose, place.sharding, place.method, place.workers) == (purpose, sharding, method, workers)
            and isinstance(outcome, Mapping)
        }

    def entry(self, purpose: Purpose, sharding: Sharding, method: str, workers: int | None = None) -> Entry | None:
        """A method over its finished seeds; ``None`` without any.

        Default settings are compared with the tuned reference.
        """
        workers = workers or self.study.workers[0]
        runs = self.runs(purpose, sharding, method, workers)
        if not runs:
            return None
        reference = self.runs("tuned" if purpose == "default" else purpose, sharding, REFERENCE, workers)
        first = next(iter(runs.values()))
        setting = Setting(first["setting"]["learning_rate"], tuple((n, v) for n, v in first["setting"]["options"]))
        measures = {name: spread([run[name] for run in runs.values()]) for name in _MEASURES}
        sent = spread([run["bytes_sent"] for run in runs.values()]).mean
        share = sent / spread([run["bytes_sent"] for run in reference.values()]).mean if reference else None
        compared = bool(reference) and method != REFERENCE
        scores = {seed: float(run["score"]) for seed, run in runs.items()}
        others = [float(run["score"]) for run in reference.values()]
        difference = welch_difference([*scores.values()], others) if compared else None
        curve = self._curve(method, setting, workers, list(runs.values()))
        return Entry(
            method,
            setting,
            measures,
            scores,
            sent,
            share,
            curve[-1][-1],
            difference,
            None if difference is None else self._verdict(difference),
            self._keeps_up(method, measures["score"], spread(others), share),
            curve,
        )

    def entries(self, purpose: Purpose, sharding: Sharding, workers: int | None = None) -> list[Entry]:
        """Those of all methods that have one."""
        found = (self.entry(purpose, sharding, method, workers) for method in self.study.methods)
        return [entry for entry in found if entry is not None]

    def margin(self, reference: Spread) -> float:
        """How far behind the reference a method may lie."""
        return max(self.metric.tolerance, reference.deviation if reference.count > 1 else 0.0)

    def _verdict(self, difference: Difference) -> str:
        if self.metric.higher_is_better:
            return difference.verdict
        return Difference(-difference.value, -difference.high, -difference.low).verdict

    def _keeps_up(self, method: str, own: Spread, reference: Spread, share: float | None) -> bool | None:
        if not METHODS[method].in_criterion or share is None:
            return None
        behind = self.metric.sign * (reference.mean - own.mean)
        return behind <= self.margin(reference) and share <= SHARE_OF_BYTES

    def _curve(
        self, method: str, setting: Setting, workers: int, runs: Sequence[Mapping[str, Any]]
    ) -> list[list[float]]:
        rows = [
            [spread([*values]).mean for values in zip(*points, strict=True)]
            for points in zip(*(run["curve"] for run in runs), strict=True)
        ]
        costs = _costs(
            METHODS[method].build(setting),
            workers,
            None if method == NO_COMMUNICATION else self.study.sync_every,
            int(runs[0]["parameters"]),
            self.hardware,
            tuple(int(row[0]) for row in rows),
        )
        return [[*row, cost.seconds] for row, cost in zip(rows, costs, strict=True)]


def collect_results(
    planner: Planner, found: Found, hardware: Hardware, about: Mapping[str, Any] | None = None
) -> StudyResults:
    """Sum up what was found."""
    study = planner.study
    places = [(place, None if place.cell is None else found(place.cell)) for place in planner.plan(found)]
    choices = {
        (sharding, method): planner.choice(method, sharding, found)
        for sharding in study.shardings
        for method in study.methods
    }
    return StudyResults(study, planner.task.metric, hardware, places, choices, about or {})


@lru_cache(maxsize=1024)
def _costs(
    strategy: Strategy,
    workers: int,
    sync_every: int | None,
    parameters: int,
    hardware: Hardware,
    steps: tuple[int, ...],
) -> list[Costs]:
    return costs_until(strategy, workers, sync_every, parameters, hardware, list(steps))
