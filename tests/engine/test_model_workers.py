"""Pre-training, a LiDAR detector and a radar model trained by two workers that meet in rounds; stopped and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adperception.checkpoint.load import read_metadata
from adperception.config import load_config
from adperception.engine.data import ValidationBatches, spread_indices
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import STATISTICS_FRAMES
from adperception.engine.usable_model import training_frames
from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.models.base import TrainableModel
from adperception.registry import DATASETS, MODELS, build
from adperception.simulation.simulate_kitti import SimulateKitti

from toy_runs import forget_after
from toy_workers_runs import launch_workers

CPU = torch.device("cpu")
GEOMETRY = "point_cloud_range=[0.0, -6.4, -3.0, 12.8, 6.4, 1.0], voxel_size=[0.2, 0.2, 0.1]"
DATA = """
train_dataset = dict(type="KITTI", root="{root}", split="train", points="velodyne", crop_to_image=True)
val_dataset = dict(type="KITTI", root="{root}", split="val", points="velodyne", crop_to_image=True)
optimizer = dict(type="AdamW", lr=0.003)
train = dict(steps=4, batch_size=1, evaluate_first=False)
checkpoint = dict(every_steps=1, keep=9)
log = dict(every_steps=1)
"""
AD_L_JEPA = f"""
model = dict(type="ADLJEPA", {GEOMETRY})
{DATA}
"""
EVALUATED = 'evaluations = [dict(type="RepresentationEvaluation")]\n'
SECOND = f"""
model = dict(
    type="SECOND", {GEOMETRY}, bev_layers=[1, 1], bev_filters=[16, 16], bev_upsample_filters=[16, 16],
    classes=[dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45)],
)
evaluations = [dict(type="KittiAP", classes=["Car"])]
{DATA.replace("crop_to_image=True)", 'crop_to_image=True, classes=["Car"])', 1)}
"""
ERASE_NET = """
_base_ = "{repository}/configs/erase_net/erase_net_tiny.py"
prepare = None
train_dataset = dict(root="{radar}")
val_dataset = dict(root="{radar}")
train = dict(steps=4, batch_size=1, evaluate_first=False)
checkpoint = dict(every_steps=1, keep=9)
log = dict(every_steps=1)
"""
RUNS = {
    "ad_l_jepa_lsgd": (AD_L_JEPA + EVALUATED, "LSGD"),
    "ad_l_jepa_lgrawa": (AD_L_JEPA, "LGRAWA"),
    "second_lsgd": (SECOND, "LSGD"),
    "second_local_sgd": (SECOND, "LocalSGD"),
    "erase_net_easgd": (ERASE_NET, "EASGD"),
}
LIMIT_SECONDS = 500.0
LAST = "checkpoints/step_00000004"

pytestmark = [pytest.mark.multi_process, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two validation frames."""
    splits = {"train": 0.8, "val": 0.2}
    return SimulateKitti(tmp_path_factory.mktemp("data") / "kitti", frames=10, columns=200, splits=splits)()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, kitti: Path, simulated_radar: Path, repository: Path) -> Path:
    """A run of four steps and two rounds for each."""
    folder = tmp_path_factory.mktemp("models")
    for name, (text, strategy) in RUNS.items():
        for key, path in (("root", kitti), ("radar", simulated_radar), ("repository", repository)):
            text = text.replace("{" + key + "}", str(path))
        distributed = f'distributed = dict(type="{strategy}", sync_every_steps=2, round_timeout_seconds=60.0)\n'
        (folder / f"{name}.py").write_text(text + distributed, encoding="utf-8")
    runs = [{"config": str(folder / f"{name}.py"), "work_dir": str(folder / name)} for name in RUNS]
    for name, results in zip(RUNS, launch_workers(2, runs, timeout=LIMIT_SECONDS), strict=True):
        assert [(r["error"], r["step"], r["rounds"]) for r in results] == [("", 4, 2)] * 2, name
    return folder


def test_resume_is_equal_to_the_bit(whole: Path, tmp_path: Path) -> None:
    """From between two rounds; what is saved of each worker is all of it, and its bytes go on counting."""
    runs = []
    for name in RUNS:
        shutil.copytree(whole / name, tmp_path / name)
        forget_after(tmp_path / name, 3)
        runs.append({"config": str(whole / f"{name}.py"), "work_dir": str(tmp_path / name), "resume": True})
    for name, results in zip(RUNS, launch_workers(2, runs, timeout=LIMIT_SECONDS), strict=True):
        assert [(r["error"], r["step"], r["rounds"]) for r in results] == [("", 4, 2)] * 2, name
        for file in ("model.safetensors", "rank_00000.safetensors", "rank_00001.safetensors"):
            one, two = (load_file(folder / name / LAST / file) for folder in (whole, tmp_path))
            assert one.keys() == two.keys()
            different = [k for k in one if not torch.equal(one[k], two[k]) and not k.startswith("random/")]
            assert not different, (name, file, different)
        for rank in (0, 1):
            states = (read_metadata(f / name / LAST / f"rank_0000{rank}.safetensors") for f in (whole, tmp_path))
            assert len({json.dumps(state["strategy"]) for state in states}) == 1, name


def test_moving_average_is_saved_per_worker_and_averaged_in_the_consensus(whole: Path) -> None:
    for name in ("ad_l_jepa_lsgd", "ad_l_jepa_lgrawa"):
        model = load_file(whole / name / LAST / "model.safetensors")
        ranks = [load_file(whole / name / LAST / f"rank_0000{rank}.safetensors") for rank in (0, 1)]
        weights = [key for key in model if key.startswith("target_encoder.") and key.endswith("weight")]
        assert len(weights) == 24
        for key in weights:
            one, two = (rank[f"model/{key}"] for rank in ranks)
            assert not torch.equal(one, two), key
            torch.testing.assert_close(model[key], (one + two) / 2)
        # The tokens are frozen: equal everywhere, to the bit, and part of no round.
        for key in ("mask_token", "empty_token"):
            assert torch.equal(model[key], ranks[0][f"model/{key}"])
            assert torch.equal(model[key], ranks[1][f"model/{key}"])


def test_evaluations_and_report_are_of_the_consensus(whole: Path) -> None:
    for name in RUNS:
        lines = [json.loads(line) for line in (whole / name / "log.jsonl").open()]
        steps = {line["step"]: line for line in lines if line["kind"] == "train"}
        assert [steps[step]["rounds"] for step in (1, 2, 3, 4)] == [0, 1, 1, 2]
        assert steps[1]["bytes_sent"] == 0, "only what is sent in rounds counts"
        results = json.loads((whole / name / "results.json").read_text())
        assert results["distributed"]["type"] == RUNS[name][1]
        assert (results["processes"], results["rounds"]) == (2, 2)
    jepa = json.loads((whole / "ad_l_jepa_lsgd/results.json").read_text())["metrics"]
    assert jepa["effective_rank"] > 1
    assert 0 < jepa["val_loss"] < 2
    assert (whole / "ad_l_jepa_lsgd/panels/pretraining_panel.png").is_file()
    assert "Car_3d_R40_moderate" in json.loads((whole / "second_lsgd/results.json").read_text())["metrics"]


def test_a_detector_is_given_away_with_statistics_that_both_workers_estimated(whole: Path) -> None:
    """Each over its half of the training frames, with the consensus's weights; then pooled."""
    values = load_config(whole / "second_local_sgd.py").values
    model = build(MODELS, values["model"])
    model.load_state_dict(load_file(whole / "second_local_sgd" / LAST / "model.safetensors"))
    dataset = build(DATASETS, values["train_dataset"])
    indices = spread_indices(len(dataset), STATISTICS_FRAMES)
    metadata = read_metadata(whole / "second_local_sgd/weights.safetensors")
    assert metadata["batch_norm_statistics"] == "re-estimated over 8 training frames, pooled over the workers"
    halves = [_estimated(model, dataset, indices[rank::2]) for rank in (0, 1)]
    given = load_file(whole / "second_local_sgd/weights.safetensors")
    assert len(halves[0]) > 10
    for name, (mean, variance) in halves[0].items():
        other_mean, other_variance = halves[1][name]
        pooled = (mean + other_mean) / 2
        second_moment = (variance + mean**2 + other_variance + other_mean**2) / 2
        torch.testing.assert_close(given[f"{name}.running_mean"], pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(given[f"{name}.running_var"], second_moment - pooled**2, rtol=1e-4, atol=1e-5)


def test_both_encoders_of_ad_l_jepa_are_recalibrated(whole: Path, tmp_path: Path) -> None:
    """Alone the consensus is the worker itself, so its statistics are those of a copy, estimated by the slow twin."""
    options = ["distributed.allow_single_worker=True", "checkpoint.every_steps=9"]
    config = load_config(whole / "ad_l_jepa_lgrawa.py", options)
    trainer = train(config, RunOptions(tmp_path / "run", device="cpu"))
    batches = training_frames(trainer, STATISTICS_FRAMES)
    expected = _statistics(with_reestimated_batch_norm(trainer.model, batches, device=CPU, count=len(batches)))
    before = _statistics(trainer.model)
    with trainer.as_evaluated():
        within = _statistics(trainer.model)
    after = _statistics(trainer.model)
    assert {name.split(".")[0] for name in within} == {"context_encoder", "target_encoder", "predictor"}
    for name, (mean, variance) in within.items():
        torch.testing.assert_close(mean, expected[name][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(variance, expected[name][1], rtol=1e-4, atol=1e-6)
        assert not torch.equal(mean, before[name][0]), name
        assert torch.equal(after[name][0], before[name][0])
        assert torch.equal(after[name][1], before[name][1])


def _estimated(model: TrainableModel, dataset: object, indices: list[int]) -> dict[str, tuple[Tensor, Tensor]]:
    collate = model.collate(training=True)
    batches = ValidationBatches(dataset, 1, 0, collate, 0, CPU, indices)  # type: ignore[arg-type]
    return _statistics(with_reestimated_batch_norm(model, batches, device=CPU, count=len(batches)))


def _statistics(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Running mean and variance of every batch-norm layer."""
    norms = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in norms}  # type: ignore[union-attr]
