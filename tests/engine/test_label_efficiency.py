"""The study as a whole: real runs at toy size, skipping, going on, stopping."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from adperception.checkpoint.load import read_tensors
from adperception.config import load_config
from adperception.engine.cells import read_cell
from adperception.engine.hooks.run_report import RunReport
from adperception.engine.label_efficiency import StudyRun, default_metric, run_study
from adperception.engine.label_efficiency_plan import Study, plan_cells
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import StepOutcome, Trainer
from adperception.simulation.simulate_kitti import SimulateKitti

GEOMETRY = "point_cloud_range=[0.0, -6.4, -3.0, 12.8, 6.4, 1.0], voxel_size=[0.2, 0.2, 0.1], in_channels=4"
DATA = 'type="KITTI", root="{root}", points="velodyne", crop_to_image=True'
DETECTOR = f"""
model = dict(
    type="SECOND", {GEOMETRY}, bev_layers=[1, 1], bev_filters=[16, 16], bev_upsample_filters=[16, 16],
    classes=[dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45)],
)
train_dataset = dict({DATA}, split="train", classes=["Car"])
val_dataset = dict({DATA}, split="val")
optimizer = dict(type="AdamW", lr=0.003)
train = dict(steps=2, batch_size=2)
evaluations = [dict(type="KittiAP", classes=["Car"])]
"""
METHOD = f"""
model = dict(type="BEVMAE", {GEOMETRY})
train_dataset = dict({DATA}, split="train")
optimizer = dict(type="AdamW", lr=0.003)
train = dict(steps=3, batch_size=2)
"""


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of single runs, which take longer than the runs do here; ``test_run_report.py`` looks at them."""
    monkeypatch.setattr(RunReport, "_pictures", lambda *_: [])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": 0.8, "val": 0.2}
    return SimulateKitti(tmp_path_factory.mktemp("data") / "kitti", frames=10, columns=150, splits=splits)()


@pytest.fixture
def study(root: Path, tmp_path: Path) -> Study:
    configs = {}
    for name, text in (("detector", DETECTOR), ("method", METHOD)):
        path = tmp_path / f"{name}.py"
        path.write_text(text.replace("{root}", str(root)), encoding="utf-8")
        configs[name] = load_config(path)
    return Study(
        detector=configs["detector"],
        pretraining={"bev_mae": configs["method"]},
        inits=("scratch", "bev_mae"),
        fractions=(0.25, 1.0),
        seeds=1,
    )


class Counted:
    """``train``, remembering what it was asked to do; ``stop_at``: a SIGTERM in the first step of that one."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.stop_at = stop_at

    def __call__(self, config: Any, options: RunOptions) -> Trainer:
        self.calls.append((options.work_dir.parts[-3 if "finetune" in options.work_dir.parts else -2], options.resume))
        if len(self.calls) - 1 != self.stop_at:
            return train(config, options)
        with patch.object(Trainer, "update", update_and_stop):
            return train(config, options)


def update_and_stop(self: Trainer, outcome: StepOutcome, update: Any = Trainer.update) -> None:
    update(self, outcome)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_whole_study(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert default_metric(study) == "mean_3d_R40_moderate"
    work_dir = tmp_path / "study"
    counted = Counted()
    results = run_study(study, StudyRun(work_dir, device="cpu", command=["python", "x"]), counted)
    assert results.is_complete
    assert len(counted.calls) == 5
    stored = json.loads((work_dir / "results.json").read_text())
    assert [(e["init"], e["fraction"]) for e in stored["entries"]] == [
        ("scratch", 0.25),
        ("bev_mae", 0.25),
        ("scratch", 1.0),
        ("bev_mae", 1.0),
    ]
    by_kind = {(c["kind"], c["init"], c["fraction"]): c for c in stored["cells"]}
    assert by_kind["pretrain", "bev_mae", None]["training_frames"] == 8  # all of the split
    assert by_kind["finetune", "bev_mae", 0.25]["training_frames"] == 2
    assert by_kind["finetune", "bev_mae", 0.25]["encoder_tensors"] == "72/72"
    assert by_kind["finetune", "scratch", 0.25]["encoder_tensors"] is None
    assert {c["steps"] for c in stored["cells"] if c["kind"] == "finetune"} == {2}
    assert stored["command"] == ["python", "x"]
    assert "too few seeds" in (work_dir / "results.md").read_text()
    assert (work_dir / "results.png").is_file()

    # The encoder of the pre-training is where the fine-tuning began: two steps away at most.
    cells = {(c.kind, c.init, c.fraction): c for c in plan_cells(study)}
    pretrained = read_tensors(work_dir / cells["pretrain", "bev_mae", None].folder / "weights.safetensors")
    name = "conv3.0.0.weight"
    before = pretrained[f"encoder.{name}"]
    for init, near in (("bev_mae", True), ("scratch", False)):
        folder = work_dir / cells["finetune", init, 1.0].folder
        after = read_tensors(folder / "weights.safetensors")[f"backbone_3d.{name}"]
        assert bool((after - before).abs().max() < 0.01) == near
        assert not (folder / "checkpoints").exists()

    again = Counted()
    more = replace(study, inits=("bev_mae",), fractions=(0.5, 1.0))
    assert run_study(more, StudyRun(work_dir, device="cpu"), again).is_complete
    assert len(again.calls) == 1  # the new fraction only
    assert "3 cells, 2 done" in capsys.readouterr().out


def test_an_interrupted_cell_goes_on_and_gives_the_same(study: Study, tmp_path: Path) -> None:
    small = replace(study, fractions=(1.0,), steps=4)
    whole = run_study(small, StudyRun(tmp_path / "whole", device="cpu"), Counted())
    stopped = Counted(stop_at=1)
    work_dir = tmp_path / "stopped"
    first = run_study(small, StudyRun(work_dir, device="cpu"), stopped)
    assert not first.is_complete
    assert len(first.cells) == 1
    assert len(stopped.calls) == 2
    rest = Counted()
    results = run_study(small, StudyRun(work_dir, device="cpu"), rest)
    assert results.is_complete
    assert rest.calls == [("scratch", True), ("bev_mae", False)]
    cells = plan_cells(small)
    for cell in cells:
        a, b = (read_tensors(base / cell.folder / "weights.safetensors") for base in (tmp_path / "whole", work_dir))
        assert all(bool((a[name] == b[name]).all()) for name in a)
    assert [c["metrics"] for c in whole.cells] == [c["metrics"] for c in results.cells]


def test_the_time_limit_ends_the_study_between_or_inside_cells(study: Study, tmp_path: Path) -> None:
    counted = Counted()
    results = run_study(study, StudyRun(tmp_path / "study", device="cpu", time_limit_minutes=1e-6), counted)
    assert not results.is_complete
    assert len(counted.calls) <= 1
    inside = Counted()
    many = replace(study, pretrain_steps=100_000)
    results = run_study(many, StudyRun(tmp_path / "study", device="cpu", time_limit_minutes=2 / 60), inside)
    assert len(inside.calls) == 1
    assert not results.cells
    (folder,) = (tmp_path / "study/pretrain/bev_mae").glob("*/checkpoints")
    assert list(folder.iterdir())


def test_damaged_and_foreign_cells_are_named(study: Study, tmp_path: Path) -> None:
    (cell, *_) = plan_cells(study)
    assert read_cell(tmp_path, cell) is None
    path = tmp_path / cell.folder / "cell.json"
    path.parent.mkdir(parents=True)
    for text, message in (
        ('{"key": ', "is damaged"),
        ("{}", "is damaged"),
        ('{"key": "abc"}', "belongs to the cell abc"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_cell(tmp_path, cell)


def test_a_misspelt_option_is_found_before_the_first_cell(study: Study, tmp_path: Path) -> None:
    counted = Counted()
    wrong = load_config(study.detector.path, ["model.bev_filter=[8, 8]"])
    with pytest.raises(ValueError, match='"bev_filter" is not an option of SECOND'):
        run_study(replace(study, detector=wrong), StudyRun(tmp_path, device="cpu"), counted)
    assert not counted.calls


def test_several_processes_are_refused(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        run_study(study, StudyRun(tmp_path))
