from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adperception.checkpoint.convert import read_foreign, write_foreign
from adperception.checkpoint.convert_openpcdet import from_openpcdet
from adperception.checkpoint.encoder import load_encoder
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.save import write_tensors
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.models.detectors.pv_rcnn import PVRCNN
from adperception.models.detectors.second import SECOND
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.structures import Voxels

CLASSES = [
    dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45),
    dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
    dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
]


def stored_state(file: Path) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    with np.load(file) as stored:
        state = {k[6:]: torch.from_numpy(stored[k]) for k in stored.files if k.startswith("state/")}
        return state, {k: stored[k] for k in stored.files if not k.startswith("state/")}


@pytest.mark.golden
@pytest.mark.parametrize("zip_format", [True, False])
def test_upstream_second_in_spconv_1_layout_gives_its_outputs(golden: Path, tmp_path: Path, zip_format: bool) -> None:
    state, rest = stored_state(golden / "second.npz")
    spconv_1 = {k: v.permute(1, 2, 3, 4, 0).contiguous() if v.dim() == 5 else v for k, v in state.items()}
    content = {"model_state": {**spconv_1, "global_step": torch.tensor([74240])}, "optimizer_state": None, "epoch": 80}
    torch.save(content, tmp_path / "second.pth", _use_new_zipfile_serialization=zip_format)
    converted = read_foreign(tmp_path / "second.pth")
    assert (converted.library, converted.layout, converted.step) == ("openpcdet", "RSCK", 74240)
    model = SECOND(rest["meta/point_cloud_range"].tolist(), rest["meta/voxel_size"].tolist(), CLASSES).eval()
    model.load_state_dict(converted.state, strict=True)
    coordinates = torch.from_numpy(rest["input/voxel_coords"].astype(np.int32))
    with torch.no_grad():
        outputs = model.head_outputs(Voxels(torch.from_numpy(rest["input/voxel_features"]), coordinates, 2))
    expected = torch.from_numpy(rest["eval/cls_preds"].astype(np.float32))
    assert (outputs.classes.view(expected.shape) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.golden
@pytest.mark.parametrize("file", ["second.npz", "centerpoint.npz"])
@pytest.mark.parametrize("layout", ["KRSC", "RSCK"])
def test_ours_to_openpcdet_and_back_is_bit_equal(golden: Path, tmp_path: Path, file: str, layout: str) -> None:
    ours, _ = from_openpcdet(stored_state(golden / file)[0])
    count = write_foreign(tmp_path / "theirs.pth", "openpcdet", ours, step=7, kernel_layout=layout)
    assert count == len(ours) + 1
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["model_state"]
    assert theirs["global_step"].tolist() == [7]
    back = read_foreign(tmp_path / "theirs.pth", "openpcdet")
    assert (back.step, back.layout) == (7, layout)
    assert back.state.keys() == ours.keys()
    assert all(torch.equal(back.state[k], v) and back.state[k].dtype == v.dtype for k, v in ours.items())


@pytest.mark.parametrize("layout", ["KRSC", "RSKC", "RSCK"])
def test_residual_encoder_there_and_back(tmp_path: Path, layout: str) -> None:
    """The layout is told from the residual blocks' norms too; the biases of their convolutions come along."""
    geometry = ((0.0, -6.4, -2.0, 12.8, 6.4, 4.0), (0.1, 0.1, 0.15), ["Vehicle"])
    state = CenterPoint(*geometry, backbone="VoxelResBackBone8x").state_dict()
    write_foreign(tmp_path / "theirs.pth", "openpcdet", state, kernel_layout=layout)
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["model_state"]
    assert {"backbone_3d.conv1.0.conv1.bias", "backbone_3d.conv4.2.bn2.running_var"} <= theirs.keys()
    back = read_foreign(tmp_path / "theirs.pth")
    assert (back.library, back.layout) == ("openpcdet", layout)
    assert back.state.keys() == state.keys()
    assert all(torch.equal(back.state[k], v) for k, v in state.items())


@pytest.mark.parametrize("backbone", ["VoxelBackBone8x", "VoxelResBackBone8x"])
def test_pv_rcnn_of_two_stages_there_and_back(tmp_path: Path, backbone: str) -> None:
    state = PVRCNN((0.0, -6.4, -3.0, 12.8, 6.4, 1.0), (0.1, 0.1, 0.1), CLASSES, backbone=backbone).state_dict()
    write_foreign(tmp_path / "theirs.pth", "openpcdet", state)
    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)["model_state"]
    assert {key.split(".")[0] for key in theirs} >= {"pfe", "point_head", "roi_head", "global_step"}
    back = read_foreign(tmp_path / "theirs.pth").state
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) for k, v in state.items())


def test_ad_l_jepa_release_to_a_second_backbone(tmp_path: Path) -> None:
    """Pre-trained here, exported as the release's file, read back, put into a detector: 72 of 72."""
    geometry = ((0.0, -1.6, -3.0, 3.2, 1.6, 1.0), (0.05, 0.05, 0.1))
    source = ADLJEPA(*geometry)
    write_foreign(tmp_path / "released.pth", "ad_l_jepa", source.state_dict(), step=3)
    converted = read_foreign(tmp_path / "released.pth")
    assert converted.library == "ad_l_jepa"
    path = tmp_path / "converted.safetensors"
    write_tensors(path, converted.state, {"encoders": dict(converted.encoders)})
    detector = SECOND(*geometry, classes=CLASSES)
    assert str(load_encoder(detector, path)) == f"initialised from {path}: 72/72 encoder tensors"
    for name, value in source.context_encoder.state_dict().items():
        assert torch.equal(detector.backbone_3d.state_dict()[name], value)


def test_what_has_no_counterpart_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'"vfe\.pfn_layers\.0\.linear\.weight" belongs to no module'):
        from_openpcdet({"vfe.pfn_layers.0.linear.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match='to_openpcdet: "mask_token" is not a tensor of a detector'):
        write_foreign(tmp_path / "a.pth", "openpcdet", {"mask_token": torch.zeros(1)})
    torch.save({"model_state": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"of no library that can be converted .* The first are conv\.weight"):
        read_foreign(tmp_path / "other.pth")


def test_a_given_layout_must_fit_the_shapes(tmp_path: Path) -> None:
    model = CenterPoint((0.0, -6.4, -2.0, 12.8, 6.4, 4.0), (0.1, 0.1, 0.15), ["Vehicle"])
    write_foreign(tmp_path / "a.pth", "openpcdet", model.state_dict())
    with pytest.raises(
        CheckpointError, match=r"--kernel-layout RSKC: backbone_3d\.conv_input\.0\.weight has the shape"
    ):
        read_foreign(tmp_path / "a.pth", kernel_layout="RSKC")
