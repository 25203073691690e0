"""SECOND and CenterPoint against stored outputs of OpenPCDet: ``second*.npz`` and ``centerpoint*.npz``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from adperception.geometry.rotated_iou import rotated_iou_bev
from adperception.models.base import Losses
from adperception.models.detectors.centerpoint import CenterPoint
from adperception.models.detectors.second import SECOND
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.heads.scored_boxes import ScoredBoxes
from adperception.structures import Voxels

pytestmark = pytest.mark.golden

ANCHORS = [
    dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45),
    dict(name="Pedestrian", size=[0.8, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
    dict(name="Cyclist", size=[1.76, 0.6, 1.73], bottom=-0.6, matched_iou=0.5, unmatched_iou=0.35),
]
TOLERANCE = 1e-4


@dataclass
class Golden:
    """Stored arrays, the model with the stored weights, its input and each frame's objects."""

    arrays: dict[str, np.ndarray]
    model: SECOND | CenterPoint
    voxels: Voxels
    frames: list[LabelledBoxes]

    def close(self, key: str, actual: Tensor) -> None:
        """Within 1e-4 of the stored array's largest value; the key's suffix says which positions are stored."""
        if "[" in key:
            axes = key[key.index("[") + 1 : -1].split(",")
            actual = actual[tuple(slice(*(int(p) if p else None for p in axis.split(":"))) for axis in axes)]
        expected = torch.from_numpy(self.arrays[key].astype(np.float32)).reshape(actual.shape)
        error = float((actual.detach().cpu() - expected).abs().max())
        assert error <= TOLERANCE * float(expected.abs().max()), (key, error)

    def close_losses(self, losses: Losses, names: dict[str, str]) -> None:
        for theirs, ours in names.items():
            expected = float(self.arrays[f"train/loss/{theirs}"])
            assert float(losses.terms[ours]) == pytest.approx(expected, rel=1e-5), theirs
        assert float(losses.total.detach()) == pytest.approx(float(self.arrays["train/loss/rpn_loss"]), rel=1e-5)


def load(path: Path, device: torch.device) -> Golden:
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    shape = [round(float(v), 6) for v in arrays["meta/point_cloud_range"]]
    size = [round(float(v), 6) for v in arrays["meta/voxel_size"]]
    model: SECOND | CenterPoint
    if path.name.startswith("second"):
        model = SECOND(shape, size, ANCHORS, in_channels=4)
    else:
        model = CenterPoint(shape, size, ["Vehicle", "Pedestrian", "Cyclist"], in_channels=4)
    state = {k.removeprefix("state/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("state/")}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    coordinates = torch.from_numpy(arrays["input/voxel_coords"])
    voxels = Voxels(torch.from_numpy(arrays["input/voxel_features"]), coordinates, len(arrays["input/gt_boxes"]))
    frames = []
    for rows in torch.from_numpy(arrays["input/gt_boxes"]).to(device):
        objects = rows[rows[:, 7] > 0]  # labels count from 1, rows of zeros fill up
        frames.append(LabelledBoxes(objects[:, :7], objects[:, 7].long() - 1))
    return Golden(arrays, model.to(device), voxels.to(device), frames)


@pytest.fixture(params=["second", "centerpoint"])
def stored(request: pytest.FixtureRequest, golden: Path, placement: torch.device) -> list[Golden]:
    paths = sorted(golden.glob(f"{request.param}*.npz"))
    assert paths, f"no {request.param}*.npz in {golden}"
    return [load(path, placement) for path in paths]


def check_maps(one: Golden, mode: str) -> None:
    """The two bird's-eye-view maps and everything that the head says."""
    with torch.no_grad():
        first = one.model.backbone_3d(one.voxels)
        one.close(f"{mode}/spatial_features[:,:,::4,::4]", first)
        second = one.model.backbone_2d(first.contiguous())
        one.close(f"{mode}/spatial_features_2d[:,:,::4,::4]", second)
        outputs = one.model.dense_head(second)
    if isinstance(one.model, SECOND):
        one.close(f"{mode}/cls_preds", outputs.classes)
        one.close(f"{mode}/box_preds", outputs.boxes)
        one.close(f"{mode}/dir_cls_preds", outputs.directions)
        return
    for name in ("center", "center_z", "dim", "rot"):
        one.close(f"{mode}/{name}", getattr(outputs, name))
    # Upstream's loss replaces the logits by clamped probabilities before they are stored.
    scores = outputs.hm.sigmoid().clamp(1e-4, 1 - 1e-4)
    one.close(f"{mode}/hm", scores if mode == "train" else outputs.hm)


def test_training_outputs_and_losses(stored: list[Golden]) -> None:
    for one in stored:
        losses = one.model.train().losses(one.model.head_outputs(one.voxels), one.frames)
        if isinstance(one.model, SECOND):
            names = {"rpn_loss_cls": "loss_cls", "rpn_loss_loc": "loss_box", "rpn_loss_dir": "loss_direction"}
        else:
            names = {"hm_loss_head_0": "loss_heatmap", "loc_loss_head_0": "loss_box"}
        one.close_losses(losses, names)
        check_maps(one, "train")


def test_evaluation_outputs(stored: list[Golden]) -> None:
    for one in stored:
        one.model.eval()
        check_maps(one, "eval")


def test_targets(stored: list[Golden]) -> None:
    for one in stored:
        if isinstance(one.model, SECOND):
            head = one.model.dense_head
            anchor_targets = head.targets(one.frames)
            labels = one.arrays["train/box_cls_labels"]
            assert np.array_equal(anchor_targets.labels.cpu().numpy(), labels)
            assert np.array_equal((anchor_targets.labels > 0).cpu().numpy(), one.arrays["train/reg_weights"] == 1)
            codes = head.target_codes(anchor_targets)  # the stored sum is one of absolute values
            assert float(codes.abs().sum()) == pytest.approx(float(one.arrays["train/box_reg_targets_sum"]), rel=1e-5)
            continue
        targets = one.model.dense_head.targets(one.frames)
        one.close("train/heatmaps", targets.heatmaps)
        present = one.arrays["train/masks"] == 1
        assert [len(f) for f in one.frames] == present.sum(axis=1).tolist()
        cells = targets.heatmaps[0, 0].numel()
        assert np.array_equal(targets.cells.cpu().numpy() % cells, one.arrays["train/inds"][present])
        assert np.array_equal(targets.cells.cpu().numpy() // cells, np.nonzero(present)[0])
        expected = one.arrays["train/target_boxes"][present]
        assert targets.codes.cpu().numpy() == pytest.approx(expected, abs=TOLERANCE)


def test_decoded_boxes(stored: list[Golden]) -> None:
    """All of SECOND's boxes, before any is dropped; CenterPoint's are stored after suppression only."""
    for one in stored:
        if isinstance(one.model, SECOND):
            with torch.no_grad():
                outputs = one.model.eval().head_outputs(one.voxels)
            one.close("eval/batch_cls_preds", outputs.classes)
            boxes = one.model.dense_head.decode(outputs).cpu().numpy()
            expected = one.arrays["eval/batch_box_preds"]
            error, scale = np.abs(boxes - expected).max(axis=(0, 1)), np.abs(expected).max(axis=(0, 1))
            assert (error <= TOLERANCE * scale).all(), error / scale


def test_final_boxes(stored: list[Golden]) -> None:
    for one in stored:
        with torch.no_grad():
            found = one.model.eval().detect(one.voxels)
        for number, ours in enumerate(found):
            boxes, scores, labels = (
                torch.from_numpy(one.arrays[f"eval/final{number}/{name}"]) for name in ("boxes", "scores", "labels")
            )
            theirs = ScoredBoxes(boxes, scores, labels - 1)
            check_same_set(theirs, ScoredBoxes(*(t.cpu() for t in ours)), one.model.suppression.nms_iou)


def check_same_set(theirs: ScoredBoxes, ours: ScoredBoxes, nms_iou: float, score_threshold: float = 0.1) -> None:
    """Pairs by class, then nearest. What has no partner must be a close call: of its score, or of one of its IoUs."""
    distance = torch.cdist(theirs.boxes[:, :3].double(), ours.boxes[:, :3].double())
    distance[theirs.labels[:, None] != ours.labels[None]] = 1e6
    rows, columns = linear_sum_assignment(distance.numpy())
    scale = theirs.boxes.abs().amax(dim=0)
    same = ((theirs.boxes[rows] - ours.boxes[columns]).abs() <= TOLERANCE * scale).all(dim=1)
    same &= (theirs.scores[rows] - ours.scores[columns]).abs() <= TOLERANCE
    same &= theirs.labels[rows] == ours.labels[columns]
    assert int(same.sum()) >= 0.99 * len(theirs.scores)
    everything = torch.cat([theirs.boxes, ours.boxes])
    for side, matched in ((theirs, rows[same.numpy()]), (ours, columns[same.numpy()])):
        alone = torch.ones(len(side.scores), dtype=torch.bool)
        alone[torch.from_numpy(matched)] = False
        for box, score in zip(side.boxes[alone], side.scores[alone], strict=True):
            overlaps = rotated_iou_bev(box[None], everything)
            close = bool(((overlaps - nms_iou).abs() <= TOLERANCE).any())
            assert close or abs(float(score) - score_threshold) <= TOLERANCE, (box, score)
