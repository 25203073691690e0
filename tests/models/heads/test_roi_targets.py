from __future__ import annotations

import torch
from torch import Tensor

from adperception.geometry import rotated_iou_3d_pairs
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.models.heads.roi_targets import sample_rois
from adperception.models.heads.scored_boxes import ScoredBoxes

CAR = torch.tensor([[10.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3]])


def shifted(ious: list[float]) -> Tensor:
    """The car moved along its length until the 3D IoU with it is the given one."""
    s = torch.tensor(ious)
    move = 4.0 * (1 - s) / (1 + s)
    boxes = CAR.repeat(len(ious), 1)
    boxes[:, 0] += move * torch.cos(CAR[0, 6])
    boxes[:, 1] += move * torch.sin(CAR[0, 6])
    return boxes


def proposals(boxes: Tensor, label: int = 0) -> ScoredBoxes:
    return ScoredBoxes(boxes, torch.zeros(len(boxes)), torch.full((len(boxes),), label))


OBJECTS = LabelledBoxes(CAR, torch.tensor([0]))
NOBODY = LabelledBoxes(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
GENERATOR = torch.Generator().manual_seed(0)


def test_scores_rise_between_the_thresholds() -> None:
    ious = [0.95, 0.75, 0.6, 0.5, 0.25, 0.05]
    targets = sample_rois([proposals(shifted(ious))], [OBJECTS], 200, GENERATOR)
    overlap = rotated_iou_3d_pairs(targets.rois, CAR.expand(200, 7))
    expected = ((overlap - 0.25) * 2).clamp(0, 1)
    torch.testing.assert_close(targets.scores, expected, atol=1e-4, rtol=0)
    assert set(targets.foreground.tolist()) == set((overlap > 0.55).nonzero().flatten().tolist())
    assert torch.equal(targets.boxes, CAR.expand(len(targets.foreground), 7))


def test_shares_of_good_hard_and_easy() -> None:
    boxes = shifted([0.9] * 100 + [0.3] * 100 + [0.0] * 100)
    targets = sample_rois([proposals(boxes)], [OBJECTS], 128, GENERATOR)
    overlap = rotated_iou_3d_pairs(targets.rois, CAR.expand(128, 7))
    assert int((overlap > 0.8).sum()) == 64
    assert int(((overlap > 0.2) & (overlap < 0.4)).sum()) == 51  # four fifths of the other 64
    assert int((overlap < 0.1).sum()) == 13
    assert targets.rois.shape == (128, 7)


def test_good_ones_are_not_repeated_unless_there_is_nothing_else() -> None:
    mixed = sample_rois([proposals(shifted([0.9, 0.8, 0.0]))], [OBJECTS], 20, GENERATOR)
    assert len(mixed.foreground) == 2
    good = sample_rois([proposals(shifted([0.9, 0.8]))], [OBJECTS], 20, GENERATOR)
    assert len(good.foreground) == 20
    hard = sample_rois([proposals(shifted([0.3, 0.2]))], [OBJECTS], 20, GENERATOR)
    assert len(hard.rois) == 20


def test_other_classes_do_not_count() -> None:
    targets = sample_rois([proposals(shifted([0.9, 0.8]), label=1)], [OBJECTS], 16, GENERATOR)
    assert len(targets.foreground) == 0
    assert not targets.scores.any()


def test_frames_without_objects_or_proposals() -> None:
    found = [proposals(shifted([0.9])), proposals(CAR[:0]), proposals(shifted([0.9]))]
    targets = sample_rois(found, [NOBODY, OBJECTS, OBJECTS], 8, GENERATOR)
    assert targets.frames.tolist() == [0] * 8 + [2] * 8
    assert targets.foreground.tolist() == list(range(8, 16))
    nothing = sample_rois([proposals(CAR[:0])], [NOBODY], 8, GENERATOR)
    assert nothing.rois.shape == nothing.boxes.shape == (0, 7)


def test_the_generator_decides() -> None:
    found = [proposals(shifted([0.9] * 90 + [0.3] * 90 + [0.01 * i for i in range(10)]))]
    a, b, c = (sample_rois(found, [OBJECTS], 64, torch.Generator().manual_seed(seed)).rois for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
