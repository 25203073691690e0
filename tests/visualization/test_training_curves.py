from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pytest

from adperception.visualization.style import new_figure
from adperception.visualization.training_curves import (
    CurveGroup,
    draw_curves,
    pretraining_curve_groups,
    read_log,
    write_training_curves,
)


@pytest.fixture
def log_file(tmp_path):
    path = tmp_path / "log.jsonl"
    records = [{"step": 5, "loss": 0.8, "loss_variance": 0.1, "learning_rate": 1e-4, "note": "warm", "done": True}]
    records += [{"step": 10, "loss": 0.6, "val_loss": 0.7, "effective_rank": float("nan")}]
    records += [{"step": 20, "loss": 0.5, "effective_rank": None}, {"step": 10, "loss": 0.55}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_series_are_sorted_finite_and_the_last_value_of_a_step_counts(log_file):
    log = read_log(log_file)
    steps, values = log.series("loss")
    assert steps.tolist() == [5, 10, 20]
    assert values.tolist() == [0.8, 0.55, 0.5]
    assert log.series("effective_rank")[0].size == 0
    assert log.series("note")[0].size == 0
    assert log.names() == ("loss", "loss_variance", "learning_rate", "val_loss", "effective_rank")


def test_cut_off_last_line_is_left_out_and_other_damage_is_named(log_file):
    whole = len(read_log(log_file).records)
    log_file.write_text(log_file.read_text() + '{"step": 30, "lo')
    assert len(read_log(log_file).records) == whole
    log_file.write_text('{"step": 1}\nnot json\n')
    with pytest.raises(ValueError, match=r"log.jsonl:2: not a JSON object"):
        read_log(log_file)
    log_file.write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r'log.jsonl:1: a record needs "step"'):
        read_log(log_file)
    with pytest.raises(FileNotFoundError, match="there is no such log"):
        read_log(log_file.parent / "other.jsonl")


def test_only_logged_groups_are_chosen(log_file):
    titles = [group.title for group in pretraining_curve_groups(read_log(log_file))]
    assert titles == ["Loss", "Terms of the training loss", "Collapse monitor: effective rank", "Learning rate"]


def test_rounds_of_workers_are_shown(log_file):
    log_file.write_text(
        '{"step": 1, "rounds": 2, "disagreement": 0.1, "leader_0": 1, "leader_11": 1, "weight_0": 0.5}\n'
    )
    curves = {group.title: group.curves for group in pretraining_curve_groups(read_log(log_file))}
    assert list(curves) == [
        "Rounds: disagreement of the workers",
        "Rounds: count",
        "Rounds: weight of each worker",
    ]
    assert [name for name, _ in curves["Rounds: count"]] == ["rounds", "rounds_skipped", "leader_0", "leader_11"]
    assert curves["Rounds: weight of each worker"] == (("weight_0", "weight 0"),)


def test_axes_show_the_values_with_labels(log_file):
    axes = new_figure(4, 3).subplots()
    group = CurveGroup("Loss", "loss", (("loss", "training"), ("absent", "nothing"), ("val_loss", "validation")))
    draw_curves(axes, read_log(log_file), group)
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.8, 0.55, 0.5])
    assert axes.get_xlabel() == "optimizer step"
    assert axes.get_ylabel() == "loss"


def test_picture_is_written_and_the_same_each_time(log_file, tmp_path):
    first = write_training_curves(log_file, tmp_path / "new" / "a.png")
    second = write_training_curves(log_file, tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    assert matplotlib.image.imread(first)[..., :3].std() > 0.01


def test_log_without_numbers_is_an_error(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="nothing to draw; the log has no numbers"):
        write_training_curves(path, tmp_path / "a.png")
