from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adperception.checkpoint.convert_ad_l_jepa import from_ad_l_jepa, to_ad_l_jepa
from adperception.checkpoint.encoder import FIRST_LAYER, load_encoder
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.save import write_tensors
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.base import DetectionModel, Losses
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.structures import Detections, LidarBatch, VoxelGrid

RANGE, SIZE = (0.0, -1.6, -2.0, 3.2, 1.6, 2.0), (0.05, 0.05, 0.1)


class Detector(DetectionModel):
    """An encoder and nothing else."""

    class_names = ("Car",)

    def __init__(self, in_channels: int = 4, size: Sequence[float] = SIZE) -> None:
        super().__init__()
        self.grid = VoxelGrid.create(RANGE, size)
        self.backbone_3d = VoxelBackBone8x(in_channels, self.grid)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        raise NotImplementedError

    def collate(self, training: bool) -> Callable[[Sequence[Any]], Any]:
        raise NotImplementedError

    def predict(self, batch: LidarBatch) -> list[Detections]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def pretrained() -> ADLJEPA:
    """Every tensor, statistics and counters included, differs from any initial value and between the branches."""
    model = ADLJEPA(RANGE, SIZE)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            random = torch.rand(value.shape, generator=generator)
            value.copy_(random if value.is_floating_point() else 7 + name.startswith("target"))
    return model


def write(path: Path, model: ADLJEPA, **metadata: Any) -> Path:
    config = {"type": "ADLJEPA", "point_cloud_range": RANGE, "voxel_size": SIZE, "in_channels": model.in_channels}
    write_tensors(path, model.state_dict(), {"model_config": config, **metadata})
    return path


@pytest.mark.parametrize(("branch", "module"), [(None, "context"), ("context", "context"), ("target", "target")])
def test_all_72_tensors_of_the_named_branch(
    tmp_path: Path, pretrained: ADLJEPA, branch: str | None, module: str
) -> None:
    detector = Detector()
    path = write(tmp_path / "pretrained.safetensors", pretrained, step=120)
    report = load_encoder(detector, path, branch=branch)
    assert str(report) == f"initialised from {path}: 72/72 encoder tensors"
    source = getattr(pretrained, f"{module}_encoder").state_dict()
    assert len(source) == 72
    assert all(torch.equal(detector.backbone_3d.state_dict()[k], v) for k, v in source.items())
    record = json.loads(json.dumps(report.record()))
    assert (record["branch"], record["tensors_loaded"], record["tensors_total"]) == (module, 72, 72)
    assert record["first_layer"] == "loaded"
    assert record["metadata"]["step"] == 120
    assert len(record["sha256"]) == 64


@pytest.mark.parametrize("policy", ["reinit", "slice"])
def test_first_layer_policies_with_five_features_in_the_file(
    tmp_path: Path, policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source, detector = ADLJEPA(RANGE, SIZE, in_channels=5), Detector(4)
    path = write(tmp_path / "five.safetensors", source)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"file \(16, 3, 3, 3, 5\), model \(16, 3, 3, 3, 4\) .*reinit.*slice"):
        load_encoder(detector, path)
    assert all(torch.equal(detector.state_dict()[k], v) for k, v in before.items())
    with caplog.at_level(logging.WARNING, logger="adperception"):
        report = load_encoder(detector, path, first_layer=policy)
    given = source.context_encoder.state_dict()
    expected = before[f"backbone_3d.{FIRST_LAYER}"] if policy == "reinit" else given.pop(FIRST_LAYER)[..., :4]
    given.pop(FIRST_LAYER, None)
    filled = detector.backbone_3d.state_dict()
    assert torch.equal(filled[FIRST_LAYER], expected)
    assert all(torch.equal(filled[k], v) for k, v in given.items())
    assert (report.loaded, report.first_layer) == (71 if policy == "reinit" else 72, policy)
    assert str(report) in caplog.text


def test_slice_cannot_invent_features(tmp_path: Path, pretrained: ADLJEPA) -> None:
    path = write(tmp_path / "four.safetensors", pretrained)
    with pytest.raises(CheckpointError, match="needs a file with more features"):
        load_encoder(Detector(5), path, first_layer="slice")
    with pytest.raises(ValueError, match='first_layer="guess" is unknown'):
        load_encoder(Detector(5), path, first_layer="guess")  # type: ignore[arg-type]


def test_another_voxel_size_is_said(tmp_path: Path, pretrained: ADLJEPA) -> None:
    report = load_encoder(Detector(size=(0.1, 0.1, 0.1)), write(tmp_path / "a.safetensors", pretrained))
    assert report.notes == ("pre-trained with voxels of 0.05 x 0.05 x 0.1 m, this model has 0.1 x 0.1 x 0.1 m",)


def test_part_of_an_encoder(tmp_path: Path, pretrained: ADLJEPA) -> None:
    detector = Detector()
    before = detector.backbone_3d.conv4[0][0].weight.detach().clone()
    report = load_encoder(detector, write(tmp_path / "a.safetensors", pretrained), expect=["conv_input.", "conv1."])
    assert (report.loaded, report.total) == (12, 72)
    assert torch.equal(detector.backbone_3d.conv4[0][0].weight, before)
    with pytest.raises(CheckpointError, match=r"no tensor below expect=\['layer1'\]"):
        load_encoder(detector, tmp_path / "a.safetensors", expect=["layer1"])


def test_refusals_name_the_thing_and_load_nothing(tmp_path: Path, pretrained: ADLJEPA) -> None:
    detector = Detector()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    path = write(tmp_path / "a.safetensors", pretrained)
    with pytest.raises(CheckpointError, match=r'no encoder "teacher". Available: context, target'):
        load_encoder(detector, path, branch="teacher")
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        load_encoder(detector, tmp_path / "gone")

    state = pretrained.state_dict()
    del state["context_encoder.conv3.1.1.running_mean"]
    state["context_encoder.conv5.weight"] = torch.zeros(1)
    write_tensors(path, state, {"model_config": {"type": "ADLJEPA"}})
    with pytest.raises(CheckpointError, match=r"71 of 72 .*Missing in the file: conv3\.1\.1\.running_mean.*conv5"):
        load_encoder(detector, path)
    write_tensors(path, pretrained.state_dict(), {"model_config": {"type": "ADLJEPAX"}})
    with pytest.raises(CheckpointError, match=r'"ADLJEPAX" is not a registered model.*ADLJEPA'):
        load_encoder(detector, path)
    write_tensors(path, pretrained.state_dict())
    with pytest.raises(CheckpointError, match="metadata do not say what it is"):
        load_encoder(detector, path)
    assert all(torch.equal(detector.state_dict()[k], v) for k, v in before.items())


def test_foreign_files_get_the_command_that_converts_them(tmp_path: Path, pretrained: ADLJEPA) -> None:
    theirs = {f"backbone_3d.{k}": v for k, v in pretrained.context_encoder.state_dict().items()}
    for name, state in (("openpcdet", theirs), ("ad_l_jepa", to_ad_l_jepa(pretrained.state_dict(), 0))):
        path = tmp_path / f"{name}.pth"
        torch.save({"model_state": state, "epoch": 80}, path)
        with pytest.raises(CheckpointError) as refusal:
            load_encoder(Detector(), path)
        assert str(refusal.value).startswith(f"{path}: 0 of 72 backbone tensors matched. The file looks like ")
        assert str(refusal.value).endswith(f"python tools/convert_checkpoint.py --from {name} {path}")
    path = tmp_path / "renamed.safetensors"
    write_tensors(path, theirs)
    with pytest.raises(CheckpointError, match=r'0 of 72 .*an OpenPCDet checkpoint \(keys start with "backbone_3d\."\)'):
        load_encoder(Detector(), path)


@pytest.mark.golden
def test_upstream_state_dict_to_a_detector(golden: Path, tmp_path: Path) -> None:
    """The backbone of the released code, 72 of 72 tensors."""
    with np.load(golden / "ad_l_jepa.npz") as stored:
        theirs = {k.removeprefix("state/"): torch.from_numpy(stored[k]) for k in stored.files if k.startswith("state/")}
    ours, _ = from_ad_l_jepa(theirs)
    write_tensors(tmp_path / "a.safetensors", ours, {"model_config": {"type": "ADLJEPA"}})
    detector = Detector()
    assert load_encoder(detector, tmp_path / "a.safetensors").loaded == 72
    for name, value in detector.backbone_3d.state_dict().items():
        assert torch.equal(value, theirs[f"encoder.{name}"].to(value.dtype))
