from __future__ import annotations

import json
from types import SimpleNamespace

import torch
from stand_in_model import StandInModel, make_batch

from adperception.checkpoint.load import load_weights, read_metadata
from adperception.engine.hooks.run_report import RunReport, before_and_after
from adperception.engine.trainer import Progress
from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.visualization.training_curves import TrainingLog

from toy import ToyModel
from toy_detector import ToyFrames

BEFORE = {"kind": "evaluation", "step": 0, "epoch": 0, "val_loss": 0.8, "effective_rank": 40.0}
AFTER = {"kind": "evaluation", "step": 9, "epoch": 1, "val_loss": 0.3, "effective_rank": None}


def trainer(folder, model, done=True):
    processes = SimpleNamespace(is_main=True, device=torch.device("cpu"))
    return SimpleNamespace(
        is_done=done,
        processes=processes,
        work_dir=folder,
        model=model,
        config=SimpleNamespace(name="tiny", sha256=lambda: "0"),
        settings=SimpleNamespace(
            model={"type": "StandIn"}, train_dataset={"type": "Folder"}, seed=0, train=SimpleNamespace(amp="off")
        ),
        dataset=ToyFrames(3),
        order=SimpleNamespace(steps_per_epoch=3, effective_batch=1, world_size=1),
        progress=Progress(step=9),
        sync=None,
        loss_scale=None,
        compiled=(),
        optimizer=SimpleNamespace(param_groups=[{}]),
        check_finite_every=1,
    )


def write_log(folder):
    lines = [BEFORE, {"kind": "train", "step": 5, "loss": 0.5}, AFTER]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_table_compares_the_first_and_the_last_evaluation():
    middle = {"kind": "evaluation", "step": 5, "val_loss": 0.5, "effective_rank": 50.0}
    table = before_and_after(TrainingLog((BEFORE, middle, AFTER)))
    assert "validation loss  0.8000  0.3000  -0.5000" in table
    assert "effective rank    40.00     n/a      n/a" in table
    assert "k-means" not in table
    assert before_and_after(TrainingLog((BEFORE,))) == ""


def test_pictures_and_table_at_the_end(tmp_path, capsys):
    write_log(tmp_path)
    RunReport([make_batch(0)]).after_run(trainer(tmp_path, StandInModel()))
    output = capsys.readouterr().out
    assert "validation loss  0.8000  0.3000" in output
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == [
        "pretraining_panel.png",
        "training_curves.png",
    ]


def test_weights_for_use_have_re_estimated_statistics(tmp_path):
    write_log(tmp_path)
    model, batches = StandInModel(), [make_batch(0)]
    RunReport(batches).after_run(trainer(tmp_path, model))
    expected = with_reestimated_batch_norm(model, batches, device="cpu").state_dict()
    loaded = StandInModel()
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    described = read_metadata(tmp_path / "weights.safetensors")
    assert described["batch_norm_statistics"] == "re-estimated over 15 validation batches"
    assert described["model_config"] == {"type": "StandIn"}


def test_other_models_get_curves(tmp_path):
    write_log(tmp_path)
    RunReport([make_batch(0)]).after_run(trainer(tmp_path, ToyModel(width=2)))
    assert [path.name for path in (tmp_path / "panels").iterdir()] == ["training_curves.png"]


def test_runs_with_rounds_get_a_picture_of_them(tmp_path):
    record = {"kind": "train", "step": 5, "loss": 0.5, "rounds": 2, "rounds_skipped": 0, "workers": 2, "bytes_sent": 9}
    (tmp_path / "log.jsonl").write_text(json.dumps(record) + "\n")
    RunReport(None).after_run(trainer(tmp_path, ToyModel(width=2)))
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["rounds.png", "training_curves.png"]


def test_an_interrupted_run_gets_no_report_and_a_broken_log_does_not_fail_the_run(tmp_path, capsys):
    write_log(tmp_path)
    RunReport(None).after_run(trainer(tmp_path, StandInModel(), done=False))
    assert not (tmp_path / "panels").exists()
    assert not (tmp_path / "weights.safetensors").exists()
    (tmp_path / "log.jsonl").write_text("damaged\n")
    RunReport(None).after_run(trainer(tmp_path, StandInModel()))
    assert "the run is complete and saved, but its report is not" in capsys.readouterr().out
