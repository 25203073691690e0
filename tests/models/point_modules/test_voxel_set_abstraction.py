from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adperception.geometry import farthest_point_sample
from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.backbones.voxel_backbone_8x import STAGE_CHANNELS, STAGE_STRIDES, VoxelBackBone8x
from adperception.models.point_modules.voxel_set_abstraction import VoxelSetAbstraction, bev_at
from adperception.structures import LidarBatch, LidarFrame, PointCloud, VoxelGrid

RANGE = [0.0, -3.2, -3.0, 6.4, 3.2, 1.0]
GRID = VoxelGrid.create(RANGE, [0.1, 0.1, 0.1])


def batch_of(*counts: int) -> LidarBatch:
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    clouds = [torch.cat([low + torch.rand(n, 3) * (high - low), torch.rand(n, 1)], dim=1) for n in counts]
    frames = [LidarFrame(str(i), PointCloud(cloud.numpy())) for i, cloud in enumerate(clouds)]
    return VoxelCollate(Voxelizer(GRID, 5, None), 4)(frames)


def test_stages_end_in_the_map_of_forward() -> None:
    backbone = VoxelBackBone8x(4, GRID).eval()
    batch = batch_of(300, 200)
    stages = backbone.stages(batch.voxels)
    assert torch.equal(stages.bev, backbone(batch.voxels))
    assert tuple(sites.features.shape[1] for sites in stages.sites) == STAGE_CHANNELS
    for sites, stride in zip(stages.sites, STAGE_STRIDES, strict=True):
        _, y, x = GRID.shape_zyx
        assert sites.spatial_shape[1:] == (y // stride, x // stride)


def test_keypoints_gather_their_own_frame() -> None:
    backbone, pfe = VoxelBackBone8x(4, GRID).eval(), VoxelSetAbstraction(4, GRID, 256, keypoints=32).eval()
    batch = batch_of(300, 0, 20)
    together = pfe(batch.points, backbone.stages(batch.voxels))
    assert together.gathered.shape == (64, pfe.gathered_channels) == (64, 640)
    assert together.features.shape == (64, 128)
    assert together.frames.tolist() == [0] * 32 + [2] * 32
    for number in (0, 2):
        own = together.frames == number
        chosen = farthest_point_sample(batch.points[number], 32)
        assert torch.equal(together.xyz[own], batch.points[number][chosen, :3])
        frame = LidarFrame("0", PointCloud(batch.points[number].numpy()))
        single = VoxelCollate(Voxelizer(GRID, 5, None), 4)([frame])
        alone = pfe(single.points, backbone.stages(single.voxels))
        torch.testing.assert_close(together.gathered[own], alone.gathered, rtol=1e-4, atol=1e-5)


def test_sites_stand_at_the_centres_of_their_cells() -> None:
    backbone, pfe = VoxelBackBone8x(4, GRID).eval(), VoxelSetAbstraction(4, GRID, 256)
    sites = backbone.stages(batch_of(50).voxels).sites[1]
    points = pfe._centres(sites, 2)
    batch, z, y, x = (int(v) for v in sites.coordinates[7])
    assert points.xyz[7].tolist() == pytest.approx([x * 0.2 + 0.1, y * 0.2 + 0.1 - 3.2, z * 0.2 + 0.1 - 3.0], abs=1e-5)
    assert int(points.frames[7]) == batch


def test_the_map_between_cells_equals_grid_sample() -> None:
    bev = torch.randn(2, 5, 8, 8)
    xyz, frames = torch.rand(200, 3) * torch.tensor([6.4, 6.4, 1.0]) - torch.tensor([0, 3.2, 0]), torch.arange(200) % 2
    cell = torch.stack([xyz[:, 0] / 0.8, (xyz[:, 1] + 3.2) / 0.8], dim=1)
    places = cell / 7 * 2 - 1  # -1 and 1 are the first and the last cell
    sampled = F.grid_sample(bev, places[None, :, None].expand(2, -1, -1, -1), align_corners=True, padding_mode="border")
    expected = sampled[frames, :, torch.arange(200), 0]
    torch.testing.assert_close(bev_at(bev, GRID, xyz, frames), expected, rtol=1e-4, atol=1e-5)


def test_not_one_point() -> None:
    backbone, pfe = VoxelBackBone8x(4, GRID), VoxelSetAbstraction(4, GRID, 256, keypoints=32)
    batch = batch_of(0, 0)
    keypoints = pfe(batch.points, backbone.stages(batch.voxels))
    assert keypoints.features.shape == (0, 128)
    keypoints.features.sum().backward()
    assert all(parameter.grad is not None for parameter in pfe.parameters())
