"""Tables of a label-efficiency study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adperception.engine.label_efficiency_plan import SCRATCH
from adperception.engine.results import write_json
from adperception.evaluation.seed_statistics import Difference, Spread, spread, welch_difference
from adperception.visualization.label_efficiency_plot import write_label_efficiency_plot

__all__ = ["Entry", "StudyResults", "collect_results", "markdown_report", "write_report"]


@dataclass(frozen=True)
class Entry:
    """One metric of one method at one fraction, over seeds.

    Attributes:
        init: the method.
        fraction: share of the labels.
        values: metric by seed; NaN where it is not defined.
        over_seeds: their mean and standard deviation.
        against_scratch: difference to training from scratch; ``None`` for scratch itself, or if it is not in the study.
    """

    init: str
    fraction: float
    values: dict[int, float]
    over_seeds: Spread
    against_scratch: Difference | None


@dataclass(frozen=True)
class StudyResults:
    """What a study has found so far.

    Attributes:
        metric: the metric compared.
        entries: by fraction, then method, of those with a finished seed.
        cells: contents of the finished cells' files.
        planned: number of cells of the whole study.
        about: what the study is, for the results file.
    """

    metric: str
    entries: tuple[Entry, ...]
    cells: tuple[dict[str, Any], ...]
    planned: int
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every cell is finished."""
        return len(self.cells) == self.planned


def collect_results(
    cells: Sequence[dict[str, Any]],
    *,
    planned: int,
    inits: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    metric: str,
    about: Mapping[str, Any] | None = None,
) -> StudyResults:
    """Sum up the finished cells.

    Args:
        cells: contents of the cells' files, pre-trainings included.
        planned: number of cells of the whole study.
        inits: methods, in the order of the table.
        fractions: shares of the labels, in the order of the table.
        seeds: number of seeds of the study.
        metric: which metric.
        about: what the study is.

    Raises:
        ValueError: if a cell does not have the metric.
    """
    values: dict[tuple[str, float], dict[int, float]] = {}
    for cell in cells:
        if cell["kind"] != "finetune":
            continue
        if metric not in cell["metrics"]:
            raise ValueError(f'--metric "{metric}" was not measured. There are {", ".join(sorted(cell["metrics"]))}.')
        value = cell["metrics"][metric]
        values.setdefault((cell["init"], cell["fraction"]), {})[cell["seed"]] = math.nan if value is None else value
    entries = []
    for fraction in fractions:
        scratch = values.get((SCRATCH, fraction))
        for init in inits:
            own = values.get((init, fraction))
            if own is None:
                continue
            own = dict(sorted(own.items()))
            difference = None
            if init != SCRATCH and scratch is not None:
                difference = welch_difference(list(own.values()), list(scratch.values()))
            entries.append(Entry(init, fraction, own, spread(list(own.values())), difference))
    return StudyResults(metric, tuple(entries), tuple(cells), planned, {**(about or {}), "seeds": seeds})


def markdown_report(results: StudyResults) -> str:
    """A table of the compared metric, and how to read it."""
    seeds = max((entry.over_seeds.count for entry in results.entries), default=0)
    lines = [
        f"# {results.about.get('detector', 'Label efficiency')}: {results.metric}",
        "",
        f"{len(results.cells)} of {results.planned} runs are finished.",
        "",
        "| labels | start | mean ± standard deviation | seeds | difference to scratch, 95 % interval | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for entry in results.entries:
        difference, verdict = "", ""
        if entry.against_scratch is not None:
            difference, verdict = str(entry.against_scratch), entry.against_scratch.verdict
        lines.append(
            f"| {100 * entry.fraction:g} % | {entry.init} | {entry.over_seeds} | {entry.over_seeds.count} | "
            f"{difference} | {verdict} |"
        )
    compared = sum(entry.against_scratch is not None for entry in results.entries)
    lines += [
        "",
        f"At the last step of every run, {seeds} seed{'s' if seeds != 1 else ''} at most. A seed covers pre-training "
        'and fine-tuning. "Not distinguishable": the 95 % Welch interval of the difference holds 0.',
    ]
    if compared > 1:
        lines.append(
            f"The {compared} intervals are not corrected for their number: without any effect, about one comparison in "
            "twenty is called different."
        )
    lines += ["", *_work_done(results.cells)]
    return "\n".join(lines) + "\n"


def write_report(results: StudyResults, folder: Path) -> None:
    """Write ``results.json``, ``results.md`` and, once there is something to draw, ``results.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            **asdict(entry),
            "values": {str(seed): value for seed, value in entry.values.items()},
            "verdict": entry.against_scratch.verdict if entry.against_scratch else None,
        }
        for entry in results.entries
    ]
    write_json(
        folder / "results.json",
        {
            **results.about,
            "metric": results.metric,
            "finished": len(results.cells),
            "planned": results.planned,
            "entries": entries,
            "cells": list(results.cells),
        },
    )
    (folder / "results.md").write_text(markdown_report(results), encoding="utf-8")
    if results.entries:
        series: dict[str, dict[float, list[float]]] = {}
        for entry in results.entries:
            series.setdefault(entry.init, {})[entry.fraction] = list(entry.values.values())
        write_label_efficiency_plot(series, results.metric, folder / "results.png")


def _work_done(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs had in common: steps, frames, time."""
    lines = []
    for kind, heading in (("pretrain", "Pre-training"), ("finetune", "Fine-tuning")):
        for steps, batch in sorted({(c["steps"], c["effective_batch"]) for c in cells if c["kind"] == kind}):
            own = [c for c in cells if (c["kind"], c["steps"], c["effective_batch"]) == (kind, steps, batch)]
            frames = ", ".join(str(n) for n in sorted({c["training_frames"] for c in own}))
            minutes = sum(c["training_seconds"] for c in own) / 60
            lines.append(
                f"- {heading}: {len(own)} runs of {steps} steps with {batch} frames each, on {frames} frames; "
                f"{minutes:.1f} minutes in all ({own[0]['device']}, {own[0]['threads']} threads)."
            )
    return lines
