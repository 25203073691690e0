"""Tables of a model comparison. What is not finished reads "missing"; nothing is filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adperception.engine.model_comparison_plan import Cell, Choice, Comparison, Found, Planned, Planner
from adperception.engine.results import write_json
from adperception.evaluation.seed_statistics import Spread, spread, welch_difference
from adperception.visualization.model_comparison_plot import write_model_comparison_plot

__all__ = ["MEANS", "VIEWS", "ComparisonResults", "collect_results", "markdown_report", "write_report"]

VIEWS = {"rd": "range-Doppler", "ra": "range-angle"}
"""Views by the beginning of their metrics' names."""

MEANS = {
    "mean_iou": "mIoU",
    "mean_dice": "mDice",
    "mean_iou_no_background": "mIoU, no background",
    "mean_dice_no_background": "mDice, no background",
}
"""Headings of the compared metrics by the end of their names."""

_MISSING = "missing"


@dataclass(frozen=True)
class ComparisonResults:
    """What a comparison has found so far.

    Attributes:
        comparison: what is compared.
        places: every planned cell, with what was found: results, an error message, or ``None``.
        choices: learning rates by model.
        sizes: multiply-adds by situation and model, e.g. ``{"erase_net": {"0 objects": 1e9}}``.
        about: further facts for the results file.
    """

    comparison: Comparison
    places: Sequence[tuple[Planned, Mapping[str, Any] | str | None]]
    choices: Mapping[str, Choice]
    sizes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Number of finished cells."""
        return sum(isinstance(outcome, Mapping) for _, outcome in self.places)

    @property
    def failures(self) -> list[tuple[Cell, str]]:
        """The cells that failed in this start, with their messages."""
        return [(p.cell, o) for p, o in self.places if isinstance(o, str) and p.cell is not None]

    @property
    def is_complete(self) -> bool:
        """Whether every cell is finished."""
        return self.finished == len(self.places)

    @property
    def budgets(self) -> dict[str, str]:
        """Headings of the comparisons by purpose of their cells."""
        study = self.comparison
        budgets = {"samples": f"Equal samples: {study.samples:,} per run"}
        if study.seconds is not None:
            budgets["seconds"] = f"Equal computing time: {study.seconds:g} s per run"
        return budgets

    def runs(self, purpose: str, model: str) -> dict[int, Mapping[str, Any]]:
        """The finished runs of a model by seed."""
        return {
            place.seed: outcome
            for place, outcome in self.places
            if (place.purpose, place.model) == (purpose, model) and isinstance(outcome, Mapping)
        }

    def values(self, purpose: str, model: str, metric: str) -> dict[int, float]:
        """A metric on the test frames by seed; NaN where it is not defined."""
        found = {seed: run["test"].get(metric) for seed, run in self.runs(purpose, model).items()}
        return {seed: math.nan if value is None else value for seed, value in found.items()}

    @property
    def class_names(self) -> list[str]:
        """Classes with an IoU, background first, in the order of the metrics; empty before the first test."""
        for purpose in self.budgets:
            for model in self.comparison.models:
                for run in self.runs(purpose, model).values():
                    names = [name[3:-4] for name in run["test"] if name.startswith("rd_") and name.endswith("_iou")]
                    return [name for name in names if name != "mean"]
        return []


def collect_results(
    comparison: Comparison,
    planner: Planner,
    found: Found,
    sizes: Mapping[str, Mapping[str, float]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> ComparisonResults:
    """Sum up what was found."""
    places = [(place, None if place.cell is None else found(place.cell)) for place in planner.plan(found)]
    choices = {model: planner.choice(model, found) for model in comparison.models}
    return ComparisonResults(comparison, places, choices, sizes or {}, about or {})


def markdown_report(results: ComparisonResults) -> str:
    """The tables, and how to read them."""
    study = results.comparison
    failed = f", {len(results.failures)} failed" if results.failures else ""
    lines = [
        f"# {', '.join(study.models)}",
        "",
        f"{results.finished} of {len(results.places)} cells are finished{failed}.",
        "",
        *_models_table(results),
    ]
    for purpose, heading in results.budgets.items():
        lines += ["", f"## {heading}", "", *_cost_table(results, purpose)]
        for view, title in VIEWS.items():
            lines += [
                "",
                f"### {title[0].upper()}{title[1:]}, test frames, per cent",
                "",
                *_view_table(results, purpose, view),
            ]
        lines += ["", f"### Difference to {study.reference}", "", *_difference_table(results, purpose)]
    lines += [
        "",
        f"Mean ± standard deviation over seeds, at the last step of every run, on the split {study.test_split}. "
        '"Not distinguishable": the 95 % interval of the difference (Welch) holds 0; the intervals are not corrected '
        "for their number, so without any effect about one in twenty is called different.",
    ]
    if results.failures:
        lines += ["", "## Failed", ""]
        lines += [f"- {cell}: {' '.join(message.split())}" for cell, message in results.failures]
    return "\n".join(lines) + "\n"


def write_report(results: ComparisonResults, folder: Path) -> None:
    """Write ``results.json``, ``results.md`` and, once there is something to draw, ``results.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    study = results.comparison
    write_json(
        folder / "results.json",
        {
            **results.about,
            "configs": {name: str(config.path) for name, config in study.models.items()},
            "overrides": {name: list(config.overrides) for name, config in study.models.items()},
            **{k: v for k, v in vars(study).items() if k != "models"},
            "finished": results.finished,
            "planned": len(results.places),
            "multiply_adds": results.sizes,
            "choices": {
                model: {"scores": {f"{r:g}": s for r, s in c.scores.items()}, "learning_rate": c.best}
                for model, c in results.choices.items()
            },
            "entries": _entries(results),
            "cells": [{"purpose": p.purpose, **o} for p, o in results.places if isinstance(o, Mapping)],
            "failed": [{"cell": str(cell), "error": message} for cell, message in results.failures],
        },
    )
    (folder / "results.md").write_text(markdown_report(results), encoding="utf-8")
    if results.class_names:
        write_model_comparison_plot(_series(results), folder / "results.png")


def _models_table(results: ComparisonResults) -> list[str]:
    """Size and learning rate of every model."""
    study = results.comparison
    rates = "".join(f" {rate:g} |" for rate in study.learning_rates)
    lines = [
        f"| model | parameters | multiply-adds | learning rate |{rates}",
        f"|---|---|---|---|{'---|' * len(study.learning_rates)}",
    ]
    remarks = []
    for model, choice in results.choices.items():
        runs = [run for purpose in ("grid", *results.budgets) for run in results.runs(purpose, model).values()]
        parameters = f"{runs[0]['parameters']:,}" if runs else _MISSING
        sizes = results.sizes.get(model, {})
        adds = ", ".join(f"{value / 1e9:.3g} G{f' ({name})' if name else ''}" for name, value in sizes.items())
        scores = "".join(f" {_score(choice, rate)} |" for rate in study.learning_rates)
        best = f"{choice.best:g}" if choice.best is not None else _MISSING
        lines.append(f"| {model} | {parameters} | {adds or 'not counted'} | {best} |{scores}")
        if choice.at_the_edge(study.learning_rates):
            remarks.append(
                f"The rate of {model} lies at the edge of the grid; a better one may lie outside (more "
                "--learning-rates keep the finished runs)."
            )
    lines += [
        "",
        f"Right: {study.select} on the validation frames at each learning rate, seed 0, "
        f"{study.grid_samples or study.samples:,} samples.",
        *remarks,
    ]
    return lines


def _score(choice: Choice, rate: float) -> str:
    if rate not in choice.scores:
        return _MISSING
    score = choice.scores[rate]
    text = "failed" if math.isnan(score) else f"{score:.2f}"
    return f"**{text}**" if rate == choice.best else text


def _cost_table(results: ComparisonResults, purpose: str) -> list[str]:
    """What the runs of one comparison cost."""
    lines = ["| model | seeds | samples | steps | computing time, s |", "|---|---|---|---|---|"]
    clocks = set()
    for model in results.comparison.models:
        runs = results.runs(purpose, model)
        seeds = f"{len(runs)} of {results.comparison.seeds}"
        if not runs:
            lines.append(f"| {model} | {seeds} | {_MISSING} | {_MISSING} | {_MISSING} |")
            continue
        samples = ", ".join(f"{n:,}" for n in sorted({run["samples"] for run in runs.values()}))
        steps = ", ".join(f"{n:,}" for n in sorted({run["steps"] for run in runs.values()}))
        clock = spread([run["clock_seconds"] for run in runs.values()])
        clocks |= {f"{run['clock']} of {run['device']}, {run['threads']} threads" for run in runs.values()}
        lines.append(f"| {model} | {seeds} | {samples} | {steps} | {_spread(clock, 0)} |")
    if clocks:
        lines += ["", f"Computing time is {'; '.join(sorted(clocks))}, in training steps (reading included)."]
    return lines


def _view_table(results: ComparisonResults, purpose: str, view: str) -> list[str]:
    """IoU per class and the means of one view."""
    classes = results.class_names
    metrics = {**{f"{name}_iou": f"IoU {name}" for name in classes}, **MEANS}
    lines = [f"| model | {' | '.join(metrics.values())} |", f"|---|{'---|' * len(metrics)}"]
    for model in results.comparison.models:
        cells = [_spread(spread([*results.values(purpose, model, f"{view}_{name}").values()])) for name in metrics]
        if not results.runs(purpose, model):
            cells = [_MISSING] * len(metrics)
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _difference_table(results: ComparisonResults, purpose: str) -> list[str]:
    lines = ["| model | view | metric | difference, 95 % interval | verdict |", "|---|---|---|---|---|"]
    for entry in _entries(results):
        if entry["comparison"] != purpose or entry["model"] == results.comparison.reference:
            continue
        start = f"| {entry['model']} | {VIEWS[entry['view']]} | {MEANS[entry['metric']]} |"
        difference = entry["difference"]
        lines.append(
            f"{start} {_MISSING} | |" if difference is None else f"{start} {entry['text']} | {entry['verdict']} |"
        )
    return lines


def _entries(results: ComparisonResults) -> list[dict[str, Any]]:
    """Every compared metric of every model over seeds, for the tables and the results file."""
    study = results.comparison
    entries = []
    for purpose in results.budgets:
        for model in study.models:
            for view in VIEWS:
                for metric in MEANS:
                    own = results.values(purpose, model, f"{view}_{metric}")
                    reference = results.values(purpose, study.reference, f"{view}_{metric}")
                    compared = model != study.reference and bool(own) and bool(reference)
                    difference = welch_difference([*own.values()], [*reference.values()]) if compared else None
                    entries.append(
                        {
                            "comparison": purpose,
                            "model": model,
                            "view": view,
                            "metric": metric,
                            "values": {str(seed): value for seed, value in own.items()},
                            "over_seeds": asdict(spread([*own.values()])),
                            "difference": asdict(difference) if difference else None,
                            "text": str(difference) if difference else None,
                            "verdict": difference.verdict if difference else None,
                        }
                    )
    return entries


def _series(results: ComparisonResults) -> dict[str, dict[str, dict[str, dict[str, list[float]]]]]:
    """Heading of the comparison -> view -> model -> metric -> values, for the plot."""
    return {
        heading: {
            title: {
                model: {
                    label: [*results.values(purpose, model, f"{view}_{metric}").values()]
                    for metric, label in MEANS.items()
                }
                for model in results.comparison.models
            }
            for view, title in VIEWS.items()
        }
        for purpose, heading in results.budgets.items()
    }


def _spread(over_seeds: Spread, decimals: int = 2) -> str:
    if not over_seeds.count:
        return "n/a"
    if over_seeds.count == 1:
        return f"{over_seeds.mean:.{decimals}f} (one seed)"
    return f"{over_seeds.mean:.{decimals}f} ± {over_seeds.deviation:.{decimals}f}"
