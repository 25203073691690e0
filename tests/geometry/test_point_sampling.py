"""Farthest points and balls against loops that follow the definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adperception.geometry import point_sampling
from adperception.geometry.point_sampling import ball_query, farthest_point_sample, farthest_point_sample_frames


def farthest_by_loop(xyz: Tensor, n: int) -> list[int]:
    chosen = [0]
    while len(chosen) < min(n, len(xyz)):
        distances = [min(float(((p - xyz[i]) ** 2).sum()) for i in chosen) for p in xyz]
        chosen.append(max(range(len(xyz)), key=lambda i: distances[i]))
    return [chosen[i % len(chosen)] for i in range(n)]


def ball_by_loop(centre: Tensor, xyz: Tensor, radius: float, n: int, allowed: Tensor) -> tuple[list[int], bool]:
    inside = [i for i, p in enumerate(xyz) if bool(allowed[i]) and float(((centre - p) ** 2).sum()) < radius * radius]
    first = inside[0] if inside else 0
    return (inside[:n] + [first] * n)[:n], not inside


@pytest.mark.parametrize("n", [1, 7, 40, 100])
def test_farthest_points_equal_a_loop(placement: torch.device, n: int) -> None:
    # Powers of two apart: squared distances are exact, whatever the order of additions.
    clouds = [torch.randint(-64, 64, (size, 3)).float() / 8 for size in (40, 25, 1)]
    clouds = [torch.unique(cloud, dim=0)[torch.randperm(len(torch.unique(cloud, dim=0)))] for cloud in clouds]
    chosen = farthest_point_sample_frames([cloud.to(placement) for cloud in clouds], n)
    for cloud, row in zip(clouds, chosen.tolist(), strict=True):
        assert row == farthest_by_loop(cloud, n)
        assert farthest_point_sample(cloud.to(placement), n).tolist() == row


def test_farthest_points_cover_a_cloud() -> None:
    xyz = torch.rand(5000, 3) * torch.tensor([70.0, 80.0, 4.0])
    chosen = farthest_point_sample(xyz, 256)
    assert len(chosen.unique()) == 256
    gaps = torch.cdist(xyz[chosen], xyz[chosen]).fill_diagonal_(torch.inf).min()
    holes = torch.cdist(xyz, xyz[chosen]).min(dim=1).values.max()
    assert gaps >= holes  # nobody is farther from the chosen ones than these from each other


@pytest.mark.parametrize(("clouds", "n"), [([], 4), ([torch.zeros(0, 3)], 4), ([torch.zeros(3, 3)], 0)])
def test_nothing_to_choose_from_is_refused(clouds: list[Tensor], n: int) -> None:
    with pytest.raises(ValueError, match="farthest_point_sample"):
        farthest_point_sample_frames(clouds, n)


@pytest.mark.parametrize(("radius", "n"), [(0.6, 4), (1.0, 8), (2.5, 16), (50.0, 3)])
@pytest.mark.parametrize("candidates", [1 << 22, 100])
def test_balls_equal_a_loop(
    placement: torch.device, radius: float, n: int, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_sampling, "MAX_CANDIDATES", candidates)
    xyz, centres = torch.rand(300, 3) * 8 - 4, torch.rand(60, 3) * 12 - 6
    xyz_frames, centre_frames = torch.randint(0, 3, (300,)), torch.randint(0, 4, (60,))  # nothing in frame 3
    indices, empty = ball_query(
        centres.to(placement),
        xyz.to(placement),
        radius,
        n,
        centre_frames=centre_frames.to(placement),
        xyz_frames=xyz_frames.to(placement),
    )
    expected = [
        ball_by_loop(c, xyz, radius, n, xyz_frames == frame) for c, frame in zip(centres, centre_frames, strict=True)
    ]
    assert indices.tolist() == [row for row, _ in expected]
    assert empty.tolist() == [none for _, none in expected]
    assert not bool(empty.all())


def test_one_frame_needs_no_numbers() -> None:
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0, 0]])
    indices, empty = ball_query(torch.tensor([[0.1, 0, 0], [2, 0, 0]]), xyz, 1.0, 2)
    assert indices.tolist() == [[0, 1], [0, 0]]  # in the order of the points; exactly 1.0 away is outside
    assert empty.tolist() == [False, True]


def test_centres_far_away_or_not_finite_are_alone() -> None:
    xyz = torch.rand(50, 3)
    centres = torch.tensor([[1e30, 0, 0], [-1e30, 0.5, 0.5], [torch.nan, 0, 0], [torch.inf, 0, 0], [0.5, 0.5, 0.5]])
    _, empty = ball_query(centres, xyz, 0.5, 4)
    assert empty.tolist() == [True, True, True, True, False]


def test_neighbours_on_cell_borders_are_found() -> None:
    """Points of a lattice with the radius as its step, far from the origin, where float32 rounds most."""
    xyz = torch.cartesian_prod(*(torch.arange(4) * 0.8 for _ in range(3))) + torch.tensor([70.0, -40.0, -3.0])
    centres = xyz + torch.tensor([0.3, -0.3, 0.2])
    indices, empty = ball_query(centres, xyz, 0.8, 8)
    near = torch.cdist(centres.double(), xyz.double()) < 0.8 - 1e-5
    for row, expected in zip(indices, near, strict=True):
        assert set(expected.nonzero().flatten().tolist()) <= set(row.tolist())
    assert not bool(empty.any())


def test_nothing_there() -> None:
    none, one = torch.zeros(0, 3), torch.zeros(1, 3)
    assert ball_query(none, one, 1.0, 4)[0].shape == (0, 4)
    indices, empty = ball_query(one, none, 1.0, 4)
    assert indices.tolist() == [[0, 0, 0, 0]]
    assert empty.tolist() == [True]
    with pytest.raises(ValueError, match="radius=0"):
        ball_query(one, one, 0, 4)
