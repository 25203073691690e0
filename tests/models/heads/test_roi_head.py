from __future__ import annotations

import math

import pytest
import torch

from adperception.models.heads.point_head import inside_boxes
from adperception.models.heads.roi_head import RoIHead, RoIOutputs, decode_rois, encode_rois, roi_grid_points
from adperception.models.heads.roi_targets import RoITargets
from adperception.models.point_modules.set_abstraction import FeaturePoints


def boxes(n: int) -> torch.Tensor:
    return torch.cat([torch.randn(n, 3) * 10, torch.rand(n, 3) * 4 + 0.5, torch.randn(n, 1) * 3], dim=1)


def test_grid_points_fill_their_box() -> None:
    rois = boxes(7)
    places = roi_grid_points(rois, 4)
    assert places.shape == (7, 64, 3)
    for roi, place in zip(rois, places, strict=True):
        assert bool(inside_boxes(place, roi[None]).all())
        torch.testing.assert_close(place.mean(dim=0), roi[:3], atol=1e-4, rtol=0)


def test_order_of_grid_points() -> None:
    places = roi_grid_points(torch.tensor([[1.0, 0, 0, 4, 2, 2, math.pi / 2]]), 2)[0]
    expected = [[1.5, -1, -0.5], [1.5, -1, 0.5], [0.5, -1, -0.5], [0.5, -1, 0.5]]  # x along the heading, z fastest
    torch.testing.assert_close(places[:4], torch.tensor(expected), atol=1e-5, rtol=0)


def test_codes_round_trip_up_to_half_a_turn() -> None:
    rois, truth = boxes(200), boxes(200)
    codes = encode_rois(truth, rois)
    assert float(codes[:, 6].abs().max()) <= math.pi / 2 + 1e-5
    decoded = decode_rois(codes, rois)
    torch.testing.assert_close(decoded[:, :6], truth[:, :6], atol=1e-3, rtol=1e-4)
    assert float(torch.sin(decoded[:, 6] - truth[:, 6]).abs().max()) < 1e-4


def test_codes_do_not_depend_on_where_the_region_is() -> None:
    roi, box = torch.tensor([[0.0, 0, 0, 4, 2, 1.5, 0.0]]), torch.tensor([[0.5, 0.2, 0.1, 4.2, 1.9, 1.6, 0.1]])
    turn = 2.2
    cos, sin = math.cos(turn), math.sin(turn)
    moved_roi = torch.tensor([[30.0, -8, -1, 4, 2, 1.5, turn]])
    moved_box = torch.tensor(
        [[30 + 0.5 * cos - 0.2 * sin, -8 + 0.5 * sin + 0.2 * cos, -0.9, 4.2, 1.9, 1.6, turn + 0.1]]
    )
    torch.testing.assert_close(encode_rois(moved_box, moved_roi), encode_rois(box, roi), atol=1e-5, rtol=0)
    diagonal = math.hypot(4, 2)
    assert encode_rois(box, roi)[0, :3].tolist() == pytest.approx([0.5 / diagonal, 0.2 / diagonal, 0.1 / 1.5])


def targets(rois: torch.Tensor, truth: torch.Tensor, scores: list[float], foreground: list[int]) -> RoITargets:
    chosen = torch.tensor(foreground, dtype=torch.int64)
    return RoITargets(rois, torch.zeros(len(rois), dtype=torch.int64), torch.tensor(scores), chosen, truth[chosen])


def test_losses_of_perfect_outputs() -> None:
    rois, truth = boxes(4), boxes(4)
    outputs = RoIOutputs(torch.tensor([50.0, 50, -50, -50]), encode_rois(truth, rois))
    terms = RoIHead(8, grid_size=1).losses(outputs, targets(rois, truth, [1.0, 1, 0, 0], [0, 1]))
    assert [float(value) for value in terms.values()] == pytest.approx([0, 0, 0], abs=1e-4)


def test_losses_by_hand() -> None:
    roi = torch.tensor([[5.0, 0, 0, 4, 3, 2, 0.0]])
    truth = torch.tensor([[5.5, 0, 0, 4, 3, 2, 0.0]])  # half a metre ahead: code 0.1 of the diagonal
    outputs = RoIOutputs(torch.zeros(1), torch.zeros(1, 7))
    terms = RoIHead(8, grid_size=1).losses(outputs, targets(roi, truth, [0.5], [0]))
    assert float(terms["loss_roi_cls"]) == pytest.approx(math.log(2))
    assert float(terms["loss_roi_box"]) == pytest.approx(0.5 * 0.1**2 * 9)
    assert float(terms["loss_roi_corner"]) == pytest.approx(0.5 * 0.5**2)


@pytest.mark.parametrize("regions", [0, 1, 5])
@pytest.mark.parametrize("points", [0, 40])
def test_hardly_anything_reaches_every_parameter(regions: int, points: int) -> None:
    head, rois = RoIHead(8, grid_size=2), boxes(regions)
    keypoints = FeaturePoints(torch.randn(points, 3), torch.zeros(points, dtype=torch.int64), torch.randn(points, 8))
    outputs = head(rois, torch.zeros(regions, dtype=torch.int64), keypoints, torch.Generator().manual_seed(0))
    terms = head.losses(outputs, targets(rois, rois, [0.0] * regions, []))
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
