from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from adperception.visualization.rounds_plot import has_rounds, per_round, write_rounds
from adperception.visualization.training_curves import TrainingLog, read_log


def line(step: int, rounds: int, sent: int, **more: Any) -> dict[str, Any]:
    common = {"round_seconds": 0.02, "disagreement": 0.5, "rounds_skipped": 0, "workers": 2, **more}
    return {"kind": "train", "step": step, "loss": 1.0, "rounds": rounds, "bytes_sent": sent, **common}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_growth_per_round() -> None:
    """Lines without a round are passed over, what was sent meanwhile counts for the next; a fallen total began anew."""
    log = TrainingLog((line(1, 0, 10), line(4, 2, 50), line(5, 2, 60), line(8, 3, 80), line(10, 5, 30)))
    steps, sent = per_round(log, "bytes_sent")
    assert steps.tolist() == [4, 8, 10]
    assert sent.tolist() == [25, 30, 15]


@pytest.mark.parametrize("more", [{}, {"leader_0": 2, "leader_5": 1}, {"weight_0": 0.3, "weight_1": 0.7}])
def test_picture(tmp_path: Path, more: dict[str, float]) -> None:
    log = write(tmp_path / "log.jsonl", [line(2, 1, 10, **more), line(4, 2, 20, **more)])
    picture = matplotlib.image.imread(write_rounds(log, tmp_path / "panels" / "rounds.png"))
    assert picture.shape[:2] == (round(3 * 3.2 * 110), 12 * 110)
    # Five panels, and a sixth if there are leaders or weights.
    last = picture[-picture.shape[0] // 3 :, picture.shape[1] // 2 :, :3]
    assert bool((last < 0.9).any()) == bool(more)


def test_values_that_no_logarithm_takes(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.jsonl", [line(2, 1, 10, disagreement=0.0, workers=1), line(3, 1, 10, disagreement=None)]
    )
    assert write_rounds(log, tmp_path / "rounds.png").is_file()


def test_runs_without_rounds(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", [{"step": 1, "loss": 2.0}, line(2, 0, 0)])
    assert not has_rounds(read_log(log))
    with pytest.raises(ValueError, match=r"log.jsonl: no rounds; only runs with a distributed section"):
        write_rounds(log, tmp_path / "rounds.png")
