from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adperception.models.radar.patch_losses import patch_losses
from adperception.models.radar.patch_segmenter import PatchScores

WEIGHTS = {"cross_entropy": 0.5, "dice": 5.0, "coherence": 5.0, "object": 1.0}
ONES = torch.ones(4)
EQUAL = (torch.full((4,), 0.25), torch.full((4,), 0.25))


def labels() -> tuple[torch.Tensor, torch.Tensor]:
    doppler = torch.zeros(2, 6, 4, dtype=torch.int64)
    angle = torch.zeros(2, 6, 8, dtype=torch.int64)
    doppler[0, 2:4, 1], angle[0, 2:4, 3:5] = 2, 2
    return doppler, angle


def scores(doppler: torch.Tensor, angle: torch.Tensor, objects: torch.Tensor | None) -> PatchScores:
    def sure(labels: torch.Tensor) -> torch.Tensor:
        return 30.0 * F.one_hot(labels, 4).permute(0, 3, 1, 2).float()

    return PatchScores(sure(doppler), sure(angle), None if objects is None else 30.0 * F.one_hot(objects, 4).float())


def test_right_answers_cost_nothing() -> None:
    classes = torch.tensor([2, 0])
    terms = patch_losses(scores(*labels(), classes), *labels(), classes, EQUAL, ONES, WEIGHTS)
    assert set(terms) == {"loss_rd", "loss_ra", "loss_coherence", "loss_object"}
    assert all(float(term) == pytest.approx(0, abs=1e-5) for term in terms.values())


def test_views_that_see_different_rows_are_incoherent() -> None:
    doppler, angle = labels()
    terms = patch_losses(
        scores(doppler, angle.roll(1, dims=1), None), doppler, angle, torch.zeros(2).long(), EQUAL, ONES, WEIGHTS
    )
    # Of 2 x 6 x 4 profile values rows 2 and 4 of one window differ in the classes 0 and 2; class 0 stays 1 beside them.
    assert float(terms["loss_coherence"]) == pytest.approx(5 * 2 / 48, rel=1e-4)
    assert "loss_object" not in terms


def test_weights_scale_the_terms() -> None:
    doppler, angle = labels()
    wrong = scores(doppler.roll(1, dims=1), angle, torch.tensor([1, 0]))
    classes = torch.tensor([2, 0])
    once = patch_losses(wrong, doppler, angle, classes, EQUAL, ONES, WEIGHTS)
    twice = patch_losses(wrong, doppler, angle, classes, EQUAL, ONES, {k: 2 * v for k, v in WEIGHTS.items()})
    for name, value in once.items():
        torch.testing.assert_close(twice[name], 2 * value)
    assert float(once["loss_rd"]) > 0.5


def test_foreground_only_does_not_ask_for_the_class_of_a_cell() -> None:
    doppler, angle = labels()
    other = scores(torch.where(doppler > 0, 3, 0), torch.where(angle > 0, 1, 0), torch.tensor([2, 0]))
    classes = torch.tensor([2, 0])
    terms = patch_losses(other, doppler, angle, classes, EQUAL, ONES, WEIGHTS, foreground_only=True)
    assert all(float(term) == pytest.approx(0, abs=1e-4) for term in terms.values())
    terms = patch_losses(other, doppler, angle, classes, EQUAL, ONES, WEIGHTS)
    assert float(terms["loss_rd"]) > 0.1


def test_object_weights_and_label_smoothing() -> None:
    doppler, angle = labels()
    objects = torch.tensor([[0.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    found = PatchScores(scores(doppler, angle, None).range_doppler, scores(doppler, angle, None).range_angle, objects)
    weights = torch.tensor([1.0, 1.0, 5.0, 1.0])
    classes = torch.tensor([2, 0])
    terms = patch_losses(found, doppler, angle, classes, EQUAL, weights, WEIGHTS, label_smoothing=0.1)
    expected = F.cross_entropy(objects, classes, weight=weights, label_smoothing=0.1)
    torch.testing.assert_close(terms["loss_object"], expected)
