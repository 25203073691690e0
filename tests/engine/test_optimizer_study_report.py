"""Cells in, tables out: the criterion, verdicts, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from adperception.engine.optimizer_study_plan import OptimizerStudy, Planner, StudyCell
from adperception.engine.optimizer_study_report import collect_results, markdown_report
from adperception.engine.optimizer_study_results import StudyResults
from adperception.engine.study_task import Metric

from toy_study import HARDWARE, ToyTask


@dataclass(frozen=True)
class LossTask(ToyTask):
    metric: Metric = field(default_factory=lambda: Metric("loss", higher_is_better=False, tolerance=0.0, decimals=3))


def results(
    scores: Mapping[str, Sequence[float]], sent: Mapping[str, float], task: ToyTask | None = None
) -> StudyResults:
    """Of tuned runs with these test scores by method and seed."""

    def found(cell: StudyCell) -> dict[str, Any] | None:
        spec = cell.spec
        values = [50.0] * 9 if cell.purpose == "grid" else scores.get(spec.method, [])
        if cell.purpose == "default" or (cell.purpose == "tuned" and spec.seed >= len(values)):
            return None
        value = 50.0 if cell.purpose == "grid" else values[spec.seed]
        return {
            **asdict(spec),
            **{"score": value, "best_worker": value + 1, "mean_worker": value - 1, "training_loss": 0.5},
            **{"disagreement": 0.25, "bytes_sent": sent.get(spec.method, 0.0), "parameters": 100},
            "curve": [[2, value - 5, 1.0, 0.5, sent.get(spec.method, 0.0) / 2], [4, value, 0.5, 0.25, 1.0]],
        }

    methods = ("DataParallel", "NoCommunication", *[m for m in scores if m not in ("DataParallel", "NoCommunication")])
    study = OptimizerStudy(
        methods=methods, shardings=("fixed",), seeds=3, steps=4, sync_every=2, configurations=1, workers=(2,)
    )
    return collect_results(Planner(study, task or ToyTask()), found, HARDWARE)


@pytest.mark.parametrize(
    ("own", "reference", "sent", "expected"),
    [
        ((97.6, 97.5, 97.4), (98.0, 98.0, 98.0), 100.0, True),  # half a point behind
        ((97.4, 97.4, 97.4), (98.0, 98.0, 98.0), 100.0, False),
        ((97.1, 97.1, 97.1), (97.0, 98.0, 99.0), 100.0, True),  # within one standard deviation
        ((96.9, 96.9, 96.9), (97.0, 98.0, 99.0), 100.0, False),
        ((99.0, 99.0, 99.0), (98.0, 98.0, 98.0), 110.0, False),  # too many bytes
    ],
)
def test_the_criterion(own: Sequence[float], reference: Sequence[float], sent: float, expected: bool) -> None:
    found = results({"DataParallel": reference, "LSGD": own}, {"DataParallel": 1000.0, "LSGD": sent})
    entry = found.entry("tuned", "fixed", "LSGD")
    assert entry is not None
    assert entry.keeps_up is expected
    for name in ("DataParallel", "MATCHA"):
        other = found.entry("tuned", "fixed", name)
        assert other is None or other.keeps_up is None


def test_a_metric_to_be_minimised_is_judged_the_other_way_round() -> None:
    scores = {"DataParallel": (1.0, 1.01, 1.02), "LSGD": (0.5, 0.51, 0.52), "EASGD": (1.5, 1.51, 1.52)}
    found = results(scores, {"DataParallel": 1.0}, LossTask())
    better, worse = (found.entry("tuned", "fixed", name) for name in ("LSGD", "EASGD"))
    assert better is not None
    assert worse is not None
    assert (better.verdict, better.keeps_up) == ("better", True)
    assert (worse.verdict, worse.keeps_up) == ("worse", False)
    assert better.difference is not None
    assert better.difference.value == pytest.approx(-0.5)


def test_the_tables() -> None:
    scores = {"DataParallel": (98.0, 98.1, 98.2), "LSGD": (97.0, 97.1, 97.2), "EASGD": (98.0, 98.1)}
    text = markdown_report(results(scores, {"DataParallel": 1e6, "LSGD": 3e4, "EASGD": 6e4}))
    assert "2 workers, 4 steps of 2 x 32 samples (256), rounds every 2 steps" in text
    assert "| DataParallel | lr 0.06 | 98.10 ± 0.10 |  |  | 100.0 % |" in text
    line = next(line for line in text.splitlines() if line.startswith("| LSGD | lr"))
    assert "97.10 ± 0.10 | -1.00 [-1.23, -0.77] | worse | 3.0 % |" in line
    assert line.endswith("| **no** |")
    assert "98.05 ± 0.07 (2 of 3 seeds)" in text
    assert "| NoCommunication | missing | missing |" in text
    assert "| LSGD | 96.10 ± 0.10 | 98.10 ± 0.10 | 0.5 | 0.25 | 0.03 |" in text


def test_curves_are_means_over_seeds_with_modelled_seconds() -> None:
    found = results({"DataParallel": (98.0, 99.0)}, {"DataParallel": 1.0})
    entry = found.entry("tuned", "fixed", "DataParallel")
    assert entry is not None
    assert [row[:5] for row in entry.curve] == [[2, 93.5, 1.0, 0.5, 0.5], [4, 98.5, 0.5, 0.25, 1.0]]
    assert 0.04 < entry.curve[1][5] == entry.seconds < 0.05
