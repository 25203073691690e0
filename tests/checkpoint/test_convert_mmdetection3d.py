"""mmdetection3d's side is rebuilt here from its documented names and conventions, not from the converter's table."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from adperception.checkpoint.convert import read_foreign, write_foreign
from adperception.checkpoint.convert_mmdetection3d import direction_offset_of, from_mmdetection3d
from adperception.checkpoint.layout import CheckpointError
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.models.detectors.second import SECOND

RANGE, SIZE = (0.0, -6.4, -3.0, 12.8, 6.4, 1.0), (0.1, 0.1, 0.1)
OURS = ["Car", "Pedestrian", "Cyclist"]
THEIRS = ["Pedestrian", "Cyclist", "Car"]
ANCHORS = {
    "Car": ([3.9, 1.6, 1.56], -1.78),
    "Pedestrian": ([0.8, 0.6, 1.73], -0.6),
    "Cyclist": ([1.76, 0.6, 1.73], -0.6),
}
OURS_META = "bbox_head = dict(type='Anchor3DHead', dir_offset=0.7854, dir_limit_offset=0)"


def second(**options: float) -> SECOND:
    classes = [
        dict(name=name, size=ANCHORS[name][0], bottom=ANCHORS[name][1], matched_iou=0.6, unmatched_iou=0.45)
        for name in OURS
    ]
    return SECOND(RANGE, SIZE, classes, **options).eval()  # type: ignore[arg-type]


def norm(channels: int, eps: float) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=eps)
    for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return layer


def conv_module(inputs: int, outputs: int) -> nn.Module:
    """A convolution without bias and its batch norm, called ``conv`` and ``bn``."""
    return nn.ModuleDict({"conv": nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), "bn": norm(outputs, 1e-5)})


class Backbone(nn.Module):
    """Padding inside the convolutions, so that the first one of a block has index 0."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for inputs, outputs, stride in ((256, 128, 1), (128, 256, 2)):
            layers: list[nn.Module] = []
            for number in range(6):
                first = (inputs, outputs, 3, stride, 1) if number == 0 else (outputs, outputs, 3, 1, 1)
                layers += [nn.Conv2d(*first, bias=False), norm(outputs, 1e-3), nn.ReLU()]
            self.blocks.append(nn.Sequential(*layers))


class Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deblocks = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(c, 256, s, s, bias=False), norm(256, 1e-3), nn.ReLU())
            for c, s in ((128, 1), (256, 2))
        )


def encoder_state(in_channels: int = 4) -> dict[str, Tensor]:
    """Of ``SparseEncoder``, kernels as mmcv's own sparse convolutions keep them: (kz, ky, kx, in, out)."""
    layers = {"conv_input": (in_channels, 16), "encoder_layers.encoder_layer1.0": (16, 16)}
    for stage, (inputs, outputs) in {2: (16, 32), 3: (32, 64), 4: (64, 64)}.items():
        for index in range(3):
            layers[f"encoder_layers.encoder_layer{stage}.{index}"] = (inputs if index == 0 else outputs, outputs)
    layers["conv_out"] = (64, 128)
    state = {}
    for name, (inputs, outputs) in layers.items():
        extent = (3, 1, 1) if name == "conv_out" else (3, 3, 3)
        state[f"{name}.0.weight"] = torch.randn(*extent, inputs, outputs)
        for key, value in norm(outputs, 1e-3).state_dict().items():
            state[f"{name}.1.{key}"] = value
    return {f"middle_encoder.{k}": v for k, v in state.items()}


def dense_state(backbone: Backbone, neck: Neck) -> dict[str, Tensor]:
    return {f"backbone.{k}": v for k, v in backbone.state_dict().items()} | {
        f"neck.{k}": v for k, v in neck.state_dict().items()
    }


def save(path: Path, state: dict[str, Tensor], **meta: object) -> Path:
    """As a run of mmengine saves it, with logged curves beside the weights."""
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}}
    torch.save({"meta": {"mmengine_version": "0.10", **meta}, "state_dict": state, "message_hub": hub}, path)
    return path


@pytest.mark.parametrize(
    ("cfg", "offset"), [(OURS_META, 0.78539), ("bbox_head = dict(type='Anchor3DHead')", -math.pi / 2)]
)
def test_voxelnet_predicts_the_same_boxes_classes_and_headings(tmp_path: Path, cfg: str, offset: float) -> None:
    backbone, neck = Backbone().eval(), Neck().eval()
    heads = {name: nn.Conv2d(512, 6 * values, 1) for name, values in (("cls", 3), ("reg", 7), ("dir_cls", 2))}
    state = encoder_state() | dense_state(backbone, neck)
    for name, conv in heads.items():
        state |= {f"bbox_head.conv_{name}.{k}": v for k, v in conv.state_dict().items()}
    path = save(tmp_path / "voxelnet.pth", state, dataset_meta={"CLASSES": THEIRS}, cfg=cfg)
    converted = read_foreign(path, own_classes=OURS, own_direction_offset=offset)
    assert (converted.library, converted.layout) == ("mmdetection3d", "RSCK")
    model = second(direction_offset=offset)
    model.load_state_dict(converted.state, strict=True)

    bev = torch.randn(1, 256, 16, 16)
    with torch.no_grad():
        low = backbone.blocks[0](bev)
        high = backbone.blocks[1](low)
        features = torch.cat([neck.deblocks[0](low), neck.deblocks[1](high)], dim=1)
        ours = model.backbone_2d(bev)
        assert torch.allclose(ours, features, rtol=1e-4, atol=1e-4 * float(features.abs().max()))
        outputs = model.dense_head(features)
        boxes, scores = model.dense_head.decode(outputs).view(16, 16, 3, 2, 7), outputs.classes.view(16, 16, 3, 2, 3)
        maps = {name: conv(features)[0].permute(1, 2, 0) for name, conv in heads.items()}
    # Their decoding of one cell: anchors are ordered by class, then heading; channels by anchor, then value.
    y, x = 5, 11
    for own, name in enumerate(OURS):
        number = THEIRS.index(name)
        (length, width, height), bottom = ANCHORS[name]
        for heading, angle in enumerate((0.0, 1.57)):
            anchor = number * 2 + heading
            code = maps["reg"][y, x, anchor * 7 : anchor * 7 + 7]
            diagonal = math.hypot(length, width)
            place = [x * 12.8 / 15, -6.4 + y * 12.8 / 15, bottom + height / 2]
            bin_scores = maps["dir_cls"][y, x, anchor * 2 : anchor * 2 + 2]
            yaw = float(code[6]) + angle
            yaw = (yaw - offset) % math.pi + offset + math.pi * int(bin_scores.argmax())
            expected = [
                place[0] + float(code[0]) * diagonal,
                place[1] + float(code[1]) * diagonal,
                place[2] + float(code[2]) * height,
                *(size * math.exp(float(v)) for size, v in zip((length, width, height), code[3:6], strict=True)),
                yaw,
            ]
            assert boxes[y, x, own, heading].tolist() == pytest.approx(expected, abs=1e-3)
            their_scores = maps["cls"][y, x, anchor * 3 : anchor * 3 + 3]
            wanted = [float(their_scores[THEIRS.index(n)]) for n in OURS]
            assert scores[y, x, own, heading].tolist() == pytest.approx(wanted, abs=1e-4)


def center_state(shared: nn.Module, branches: dict[str, tuple[nn.Module, nn.Conv2d]]) -> dict[str, Tensor]:
    state = {f"shared_conv.{k}": v for k, v in shared.state_dict().items()}
    for name, (first, last) in branches.items():
        state |= {f"task_heads.0.{name}.0.{k}": v for k, v in first.state_dict().items()}
        state |= {f"task_heads.0.{name}.1.{k}": v for k, v in last.state_dict().items()}
    return {f"pts_bbox_head.{k}": v for k, v in state.items()}


def test_centerpoint_predicts_the_same_and_comes_back(tmp_path: Path) -> None:
    shared = conv_module(512, 64).eval()
    counts = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "heatmap": 3}
    branches = {n: (conv_module(64, 64).eval(), nn.Conv2d(64, c, 3, padding=1)) for n, c in counts.items()}
    state = {f"pts_{k}": v for k, v in (encoder_state(5) | dense_state(Backbone(), Neck())).items()}
    state |= center_state(shared, branches)
    path = save(tmp_path / "centerpoint.pth", state, dataset_meta={"classes": THEIRS})
    model = CenterPoint((0.0, -6.4, -2.0, 12.8, 6.4, 4.0), (0.1, 0.1, 0.15), OURS).eval()
    model.load_state_dict(read_foreign(path, own_classes=OURS).state, strict=True)

    bev = torch.randn(1, 512, 16, 16)
    with torch.no_grad():
        common = shared["bn"](shared["conv"](bev)).relu()
        theirs = {n: last(first["bn"](first["conv"](common)).relu()) for n, (first, last) in branches.items()}
        ours = model.dense_head(bev)
    sine, cosine = theirs["rot"][:, 0], theirs["rot"][:, 1]
    assert torch.allclose(torch.atan2(ours.rot[:, 1], ours.rot[:, 0]), torch.atan2(sine, cosine), atol=1e-4)
    for own, name in (("center", "reg"), ("center_z", "height"), ("dim", "dim")):
        assert torch.allclose(getattr(ours, own), theirs[name], atol=1e-5), own
    order = [THEIRS.index(name) for name in OURS]
    assert torch.allclose(ours.hm, theirs["heatmap"][:, order], atol=1e-5)

    # And back: a bias before a batch norm, which they do not have, must not change any output.
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("0.0.bias") or key.endswith("shared_conv.0.bias"):
                value.normal_()
        before = model.dense_head(bev)
    write_foreign(tmp_path / "back.pth", "mmdetection3d", model.state_dict(), class_names=OURS)
    back = read_foreign(tmp_path / "back.pth", own_classes=OURS)
    assert back.layout == "RSCK"  # what mmdetection3d expects of files without a version
    model.load_state_dict(back.state, strict=True)
    with torch.no_grad():
        after = model.dense_head(bev)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True))


def test_second_there_and_back_is_bit_equal(tmp_path: Path) -> None:
    model = second()
    write_foreign(tmp_path / "theirs.pth", "mmdetection3d", model.state_dict(), class_names=OURS)
    names = torch.load(tmp_path / "theirs.pth", weights_only=True)["state_dict"]
    assert {"middle_encoder.encoder_layers.encoder_layer4.2.1.running_var", "backbone.blocks.1.0.weight"} < set(names)
    assert {"neck.deblocks.1.1.bias", "bbox_head.conv_reg.weight"} < set(names)
    back = read_foreign(tmp_path / "theirs.pth", own_classes=OURS).state
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[k], v) for k, v in model.state_dict().items())


def test_the_direction_offset_travels_with_the_head(tmp_path: Path) -> None:
    model = second(direction_offset=-1.2)
    path = tmp_path / "theirs.pth"
    write_foreign(path, "mmdetection3d", model.state_dict(), class_names=OURS, direction_offset=model.direction_offset)
    assert read_foreign(path, own_classes=OURS, own_direction_offset=-1.2).state.keys() == model.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"begin at -69 degrees \(dir_offset=-1\.2\), the model's at 45"):
        read_foreign(path, own_classes=OURS)


def test_heads_that_mean_something_else_are_refused_but_their_encoder_is_taken(tmp_path: Path) -> None:
    model = second()
    write_foreign(tmp_path / "ours.pth", "mmdetection3d", model.state_dict(), class_names=OURS)
    state = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    cases = {
        r"direction bins begin at -90 degrees .* the model's at 45; .* model\.direction_offset=-1\.5708; or": dict(
            cfg="dict(type='Anchor3DHead')"
        ),
        "has AlignedAnchor3DRangeGenerator": dict(cfg="dict(type='AlignedAnchor3DRangeGenerator')"),
        r"written by mmdetection3d 0\.18\.1; before 1\.0 boxes": dict(mmdet3d_version="0.18.1"),
    }
    for message, meta in cases.items():
        path = save(tmp_path / "theirs.pth", state, CLASSES=THEIRS, **meta)
        with pytest.raises(CheckpointError, match=message):
            read_foreign(path, own_classes=OURS)
        encoder = read_foreign(path, encoder_only=True).encoder()
        assert len(encoder) == 72
        assert all(torch.equal(encoder[k], v) for k, v in model.backbone_3d.state_dict().items())
    path = save(tmp_path / "theirs.pth", state, cfg=OURS_META)
    with pytest.raises(CheckpointError, match="order of classes is needed"):
        read_foreign(path, own_classes=OURS)
    with pytest.raises(CheckpointError, match="the file's classes are Car, Van, the model's Car, Pedestrian, Cyclist"):
        read_foreign(path, own_classes=OURS, classes=["Car", "Van"])
    read_foreign(path, own_classes=OURS, classes=OURS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pts_bbox_head.task_heads.0.vel.1.weight", 'predicts "vel", which no model here does'),
        ("pts_bbox_head.task_heads.1.reg.1.weight", "a second group of classes"),
        ("pts_middle_encoder.encoder_layers.encoder_layer1.0.conv1.weight", "an encoder of residual blocks"),
        ("pts_voxel_encoder.pfn_layers.0.linear.weight", "belongs to no module of the detectors here"),
        ("bbox_head.conv_iou.weight", "is not a tensor of Anchor3DHead or CenterHead"),
    ],
)
def test_tensors_without_a_counterpart_are_named(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as refusal:
        from_mmdetection3d({name: torch.zeros(1)})
    assert f'"{name}"' in str(refusal.value)


def test_direction_offset_is_read_from_a_config() -> None:
    assert direction_offset_of("dir_offset=-1.5708, x=1") == -1.5708
    assert direction_offset_of("model = dict()") == pytest.approx(-math.pi / 2)
